"""Result classes, their HDF5 files, and files that are written whole or not at all."""
