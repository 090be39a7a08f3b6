"""The Ray backend: what is sent, how it is carried, and the code that runs in Ray's workers."""
