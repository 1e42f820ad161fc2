"""Texts coded by the predictions of a language model that runs in whole numbers."""
