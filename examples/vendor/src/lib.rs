//! What an outsider brings.
