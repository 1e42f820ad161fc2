"""A model behind an OpenAI-compatible server, which reads texts and gives texts."""

from latentbank.backbone.endpoint.backbone import EndpointBackbone
from latentbank.backbone.endpoint.client import Client, Said

__all__ = ["Client", "EndpointBackbone", "Said"]
