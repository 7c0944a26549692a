"""SOAP: the client, its WSDL, envelopes, faults and values."""
