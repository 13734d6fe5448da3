//! The proxy as a whole: a real engine with real sockets, real upstreams that record what they got, and resources
//! applied in-process. Only the controller is played, where a test says so.

extern crate pointsman_proxy as proxy;

mod access_log;
mod apart;
mod bodies;
mod bystander;
mod clock;
mod descriptors;
mod drain;
mod exchanges;
mod fleet;
mod forwarding;
mod frames;
mod grpc;
mod health;
mod hostile_crowds;
mod hostile_downgrade;
mod hostile_framing;
mod hostile_grpc;
mod hostile_http2;
mod hostile_resets;
mod hostile_upstream;
mod hostile_windows;
mod keep_alive;
mod limits;
mod overriding;
mod reading;
mod recorder;
mod restart;
mod routing;
mod site;
mod split;
mod support;
mod tls;
mod trusted;
mod upgrade;
mod wire;
