"""ZenML steps: load, call the core once, save, describe. One step per file, named like its DVC stage."""
