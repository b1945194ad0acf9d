//! What a running Envoy lacks.
