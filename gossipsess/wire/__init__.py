"""Messages to sealed bytes and back. The only place that imports cbor2 and cryptography."""
