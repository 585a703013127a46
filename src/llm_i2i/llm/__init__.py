"""The LLM part: base model, prompts, trie, loss, QLoRA training, generator, discriminator."""
