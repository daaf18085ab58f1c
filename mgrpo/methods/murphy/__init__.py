"""MURPHY (arXiv 2511.07833)."""

PLUGINS = {"credit_back": "credit_back:CreditBack"}
