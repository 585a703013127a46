"""ZenML steps: load, call the core once, save, describe. One step a file, named like its DVC stage."""
