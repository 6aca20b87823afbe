//! The embedded adapter: redb, one file a service, concurrent commands share a commit.
