use crate::express::go_through;

#[test]
fn serve_grip_with_koa_streams_polls_publishes_and_trusts_the_signature() {
    go_through("tests/clients/koa.mjs", "");
}
