"""The server: OpenAI-compatible endpoints, banks and documents, a web page, MCP.

Importing this package loads neither FastAPI nor torch. It needs the extra `serve`.
"""
