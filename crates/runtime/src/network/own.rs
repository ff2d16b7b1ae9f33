// SPDX-License-Identifier: Apache-2.0
//! The host's own addresses, as they come and go, in a set of the router's rules.
//!
//! The host's table keeps sandboxes from them in any case, by asking the kernel for each packet. This tells the sandbox
//! at once that it was refused, and counts it.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use protocol::limits::OWN_ADDRESSES_MAX;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::elements::Element;
use super::netlink::Socket;
use super::router::Shared;
use super::rules::OWN;

/// Puts the addresses into the set, and keeps them as they are for as long as the task is there. The calling thread is in
/// the host's network namespace.
pub(super) fn watch(shared: &Arc<Shared>) -> io::Result<AbortHandle> {
    // First the news, then the reading: nothing is missed in between.
    let news = Socket::news_of_addresses()?.into_fd();
    rustix::io::ioctl_fionbio(&news, true)?;
    let known = follow(shared, HashSet::new())?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that lie about their descriptor; an OwnedFd does not"
    )]
    let readable = AsyncFd::new(news)?;
    Ok(tokio::spawn(follow_forever(readable, Arc::clone(shared), known)).abort_handle())
}

async fn follow_forever(news: AsyncFd<OwnedFd>, shared: Arc<Shared>, mut known: HashSet<Ipv4Addr>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(mut ready) = news.readable().await else { return };
        // What exactly they say does not matter, nor whether some were lost: all is read anew.
        match ready.try_io(|fd| Ok(recv(fd.as_fd(), &mut buffer[..], RecvFlags::empty())?.0)) {
            Ok(_) => {}
            Err(_would_block) => continue,
        }
        let (followed, before) = (Arc::clone(&shared), known.clone());
        match tokio::task::spawn_blocking(move || follow(&followed, before)).await {
            Ok(Ok(now)) => known = now,
            Ok(Err(error)) => tracing::warn!(%error, "cannot follow the host's own addresses"),
            Err(_) => return,
        }
    }
}

/// Makes the set what the host has now; what it has.
fn follow(shared: &Shared, known: HashSet<Ipv4Addr>) -> io::Result<HashSet<Ipv4Addr>> {
    let addresses = getifaddrs()?.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let now: HashSet<Ipv4Addr> = addresses.take(OWN_ADDRESSES_MAX).collect();
    let element = |address: &Ipv4Addr| Element { set: OWN, key: address.octets().to_vec(), last: None };
    let new: Vec<Element> = now.difference(&known).map(element).collect();
    let gone: Vec<Element> = known.difference(&now).map(element).collect();
    shared.change(&new, &gone)?;
    Ok(now)
}
