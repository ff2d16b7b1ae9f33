// SPDX-License-Identifier: Apache-2.0
//! The end of a server.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Server, run_params, within};

#[tokio::test]
async fn it_stops_every_sandbox_and_answers_the_calls_under_way() {
    let mut server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.up(name).await;
    }
    let call = server.begin("sandbox.repl.run", run_params("a", "hang")).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    server.tell_to_end();
    let text = Answer::of(call).await.flat(500, 5002);
    assert_eq!(text, "Execution failed: the sandbox was stopped");
    let (fake, address) = (server.fake.clone(), server.address);
    within(server.serving).await.unwrap();
    assert_eq!(fake.counts().live, 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn it_cancels_starts_and_does_not_wait_for_idle_clients() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = None);
    let start = server.begin("sandbox.start", server.start_params("s")).await;
    within(server.fake.wait_until(|counts| counts.starts == 1)).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let fake = server.fake.clone();
    server.end().await;
    assert_eq!((fake.counts().abandoned, fake.counts().live), (1, 0));
    Answer::of(start).await.flat(409, 4009);
    assert_eq!(within(idle.read(&mut [0; 8])).await.unwrap_or(0), 0);
}
