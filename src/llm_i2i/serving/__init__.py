"""The index online: `llm-i2i serve`.

messages.py says what is asked and answered. write.py makes a version of memory-mapped arrays, which flat.py reads;
chain.py answers from it and explain.py says why. build.py makes a version from a source and follows its changes;
arms.py says which version answers whom; events.py stores what became of it, ab.py compares arms.
app.py is the web application with its page (explorer.py, page/), server.py runs it.
"""
