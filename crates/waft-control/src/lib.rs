//! The control API, metrics and health.
use waft_gateway::{Answer, Gateway, Request, Service};
use waft_grip::sig::VerifyingKey;
/// c
#[derive(Debug, Default)]
pub struct ControlConfig { /// t
 pub token: Option<String>, /// j
 pub jwt_key: Option<VerifyingKey>, /// b
 pub body_max: usize, /// p
 pub pushpin_metrics: bool, /// m
 pub metrics_prefix: String }
/// a
#[derive(Debug)]
pub struct ControlApi(ControlConfig);
impl ControlApi { /// n
 pub fn new(c: ControlConfig) -> Self { Self(c) } }
impl Service for ControlApi {
 fn answer(&self, g: &Gateway, r: &Request<'_>) -> Answer {
  match waft_grip::item::parse_publish_body(r.body) { Ok(items) => { for i in items { g.publish(r.now, i); } Answer::text(200, "Published\n") } Err(e) => Answer::text(400, format!("{e}\n")) }
 }
 fn body_max(&self) -> usize { self.0.body_max } }
/// m
pub type MetricsService = ControlApi;
/// d
#[derive(Debug, Default)]
pub struct Demo;
impl Service for Demo { fn answer(&self, _: &Gateway, _: &Request<'_>) -> Answer { Answer::text(200, "demo\n") } fn body_max(&self) -> usize { 10000 } }
