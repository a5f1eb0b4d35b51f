"""One Hugging Face model family per file, vision and language halves together."""
