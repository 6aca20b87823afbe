//! Compares the committed SDL with the code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

const COMMITTED: &str = include_str!("../../../schema/accounts.graphql");

#[test]
fn the_committed_sdl_is_what_the_code_says() {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema/accounts.graphql");
        std::fs::write(path, tandem_accounts::sdl()).unwrap();
        return;
    }
    assert!(
        COMMITTED == tandem_accounts::sdl(),
        "schema/accounts.graphql is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-accounts --test sdl`, then compose"
    );
}
