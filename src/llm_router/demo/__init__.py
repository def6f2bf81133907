"""The demo: tiny real models of the project's own making, and the llama.cpp server that serves them."""
