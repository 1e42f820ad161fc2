"""Readers: files, folders, standard input and data sets as documents, lazily.

Knows every format exactly once; nothing about models, tokenizers or banks.
"""

from latentbank.documents.readers.folder import SUFFIXES
from latentbank.documents.readers.hub import read_hf_dataset
from latentbank.documents.readers.read import read_documents
from latentbank.documents.readers.rows import Note, ReadOptions

__all__ = ["SUFFIXES", "Note", "ReadOptions", "read_documents", "read_hf_dataset"]
