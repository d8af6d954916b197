"""Proving that what is stored can be restored, before it has to be."""
