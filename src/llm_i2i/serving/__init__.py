"""The index online: `llm-i2i serve`.

messages.py says what is asked and answered, flat.py holds a version in memory-mapped arrays, chain.py answers from it,
build.py makes a version from a source and follows its changes, app.py is the web application, server.py runs it.
"""
