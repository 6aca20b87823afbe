//! Links OpenSSL for librdkafka. The crate has no code: its build script selects the OpenSSL and explains the choice.
