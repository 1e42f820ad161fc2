"""The word index beside a large bank: postings of hashed words in immutable segments.

`lists` holds postings, `segment` documents and their lists, `files` stores arrays with checksums,
`search` finds the best documents, `folder` is the folder on disk, `index` ties them together,
`following` keeps the index level with its bank.
"""
