"""The Forklift-compatible kinds as pydantic models, one module per kind; schemas/*.json is generated from them."""
