//! A proxy that has no descriptor left: it goes on serving whom it has, and takes the others when it can.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::apart::Apart;
use crate::recorder::Recorder;
use crate::support::until;
use crate::wire::Wire;

/// Descriptors of the proxy: enough to start with.
const MOST: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h63_without_descriptors_it_serves_whom_it_has_and_recovers() {
    let apart = Apart::with(vec![Recorder::ok().await], |how| how.descriptors = Some(MOST)).await;
    let mut known = Wire::connect(apart.http).await;
    let mut asks = async || {
        known.ask("GET /known HTTP/1.1", "").await;
        known.answer().await.expect("an answer").status
    };
    assert_eq!(asks().await, 200);
    let mut crowd = Vec::new();
    for n in 0..2 * MOST {
        crowd.push(TcpStream::connect(apart.http).await.expect("connected: the kernel takes them"));
        if n % 8 == 0 {
            assert_eq!(asks().await, 200, "with {n} others");
        }
    }
    until("none is left", || apart.descriptors() >= MOST - 1).await;
    for _ in 0..20 {
        assert_eq!(asks().await, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(crowd);
    apart.is_as_before_but(1).await;
    assert_eq!(asks().await, 200);
}
