"""Restores: a replica set becomes what a backup says, up to an OpTime."""
