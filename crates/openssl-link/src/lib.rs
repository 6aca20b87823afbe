//! Links OpenSSL for librdkafka, and has no code of its own: the build script says which OpenSSL, and why.
