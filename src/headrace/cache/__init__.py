"""Image data of remote stores, kept in a directory: a store in front of a store."""
