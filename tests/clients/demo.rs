use waft_testkit::{Reply, Server, Setup, Target, chromium, waft_only};

/// Opens the demo page, publishes by its form, and reports what each of its ways shows.
const HARNESS: &str = r#"<!doctype html><title>harness</title><script>
const report = (text) => fetch('/harness/report', { method: 'POST', body: text });
const until = async (what, probe) => {
  for (;;) {
    const found = probe();
    if (found) return report(what + ': ' + found);
    await new Promise((go) => setTimeout(go, 20));
  }
};
// The page allows no frame around it, so it gets a window.
const demo = window.open('/');
demo.onload = async () => {
  const page = demo.document;
  const state = (way) => page.querySelector('#' + way + ' .state').textContent;
  await report('title: ' + page.querySelector('h1').textContent.trim());
  for (const way of ['stream', 'poll', 'socket']) {
    await until(way, () => state(way) !== 'connecting' && state(way));
  }
  page.getElementById('text').value = 'from the page';
  page.querySelector('#publish button').click();
  for (const way of ['stream', 'poll', 'socket']) {
    await until(way, () => page.querySelector('#' + way + ' ol').textContent.includes('from the page') && 'shown');
  }
  const outside = page.querySelectorAll('[src^="http"], link[href^="http"]').length;
  await report('outside resources: ' + outside);
};
</script>"#;

#[test]
fn the_demo_page_shows_what_is_published_in_three_ways() {
    waft_only!("Pushpin has no demo");
    let target = Target::start(|request| match request.path() {
        "/harness/page" => Reply::status("200 OK").header("Content-Type", "text/html").body(HARNESS),
        _ => Reply::text(""),
    });
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\n\n\
         [[route]]\npath = \"/harness/\"\ntargets = [\"{}\"]\n\n[[route]]\ntargets = [\"demo,over_http\"]\n",
        target.address()
    );
    let server = Server::start(Setup::native(config));
    let profile = server.directory().join("profile");
    let browser = chromium(&format!("http://{}/harness/page", server.address()), &profile);
    let _browser = browser.arg("--disable-popup-blocking").start();
    let reported = || {
        loop {
            let request = target.next_request();
            if request.path() == "/harness/report" {
                return request.body_text();
            }
        }
    };
    assert_eq!(reported(), "title: waft is running");
    assert_eq!([reported(), reported(), reported()], ["stream: connected", "poll: waiting", "socket: connected"]);
    assert_eq!([reported(), reported(), reported()], ["stream: shown", "poll: shown", "socket: shown"]);
    assert_eq!(reported(), "outside resources: 0");
}
