"""Declarations in, nothing out: the words, columns, tables and errors that every stage shares."""
