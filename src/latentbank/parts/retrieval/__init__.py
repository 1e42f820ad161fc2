"""Choosing documents for a question: lexical and dense scores, fusion, versions."""
