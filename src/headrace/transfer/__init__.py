"""The data plane: file descriptors in, bytes moved, standard library only."""
