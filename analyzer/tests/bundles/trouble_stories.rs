//! What happened in each case about connections in trouble, event by event.

use ktrace_bundle::event::Role;

use crate::scene::Scene;

/// The listener turns so many away in each of some seconds.
pub fn overflowing(seconds: u64, each: u64) -> Scene {
    let mut s = Scene::of("slow-accept", 71, "*");
    let socket = s.socket();
    for n in 0..seconds {
        let at = s.event(2_000_000 * n, socket).from("*:8080").role(Role::Listener);
        s.push(at.listen_overflow(each).build());
    }
    s
}

pub fn listen_overflow() -> Scene {
    let mut s = overflowing(12, 3);
    s.now_by("curl", 1847).now_to("10.42.1.15:8080");
    for n in 0..12 {
        let (ms, socket) = (2000 * n, s.socket());
        s.syn(ms, socket).syn_again(ms + 1000, socket);
        match n % 3 {
            0 => s.gives_up(ms + 2000, socket, 2000),
            _ => s.established(ms + 1020, socket, 1020).closes(ms + 1100, socket, 12, 0, 900),
        };
    }
    s
}
