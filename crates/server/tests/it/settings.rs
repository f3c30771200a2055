//! The reference page is the table in the code.

#[test]
fn the_reference_page_is_up_to_date() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/settings.md");
    let committed = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        committed == portolan_server::settings::reference(),
        "docs/reference/settings.md is stale: run `cargo xtask docs`"
    );
}
