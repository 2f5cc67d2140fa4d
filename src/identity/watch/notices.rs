//! Listens to what a containerd tells by itself, so that the names of a container are there before its first event. What
//! it tells costs at most a look at its lists: looks have their pauses, messages their number in a time. A stream that
//! ends is opened again for as long as the capture runs, and nobody waits for any of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::types::Envelope;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::containerd::{self, Notice};
use super::{PAUSE_OF_FAILED, Shared, Slot, lock};

/// After so long without a refusal a stream is taken to be open: its server is silent until there is something to tell.
const OPENED: Duration = Duration::from_millis(50);
/// The shortest time in which [`MOST_OF_A_TURN`] are taken, for which a node would have to start some hundreds of
/// containers a second. The rest waits at its sender.
const TURN: Duration = Duration::from_millis(100);
const MOST_OF_A_TURN: u64 = 256;

/// Listens until there turns out to be no stream.
pub async fn listen(shared: Arc<Shared>, at: usize, channel: Channel) {
    let Some(slot) = shared.slots.get(at) else { return };
    while follow(slot, channel.clone()).await.code() != Code::Unimplemented {
        sleep(PAUSE_OF_FAILED).await;
    }
}

/// Listens once, and returns why that is over.
async fn follow(slot: &Slot, channel: Channel) -> Status {
    let mut opening = pin!(open(channel));
    let opened = match timeout(OPENED, &mut opening).await {
        Ok(Err(status)) => return status,
        Ok(Ok(opened)) => Some(opened),
        Err(_) => None,
    };
    lock(&slot.source).hear(0);
    // what began before that was told to nobody
    slot.asked.notify_one();
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => opening.await,
    };
    match opened {
        Ok((stream, first)) => read(slot, stream, first).await,
        Err(status) => status,
    }
}

/// The stream, with the first that it tells: a refusal may come where that would.
async fn open(channel: Channel) -> Result<(Streaming<Envelope>, Option<Envelope>), Status> {
    let mut stream = containerd::subscribe(channel).await?;
    let first = stream.message().await?;
    Ok((stream, first))
}

async fn read(slot: &Slot, mut stream: Streaming<Envelope>, first: Option<Envelope>) -> Status {
    let mut next = Ok(first);
    let (mut turn, mut taken) = (Instant::now(), 0);
    loop {
        match next {
            Ok(Some(envelope)) => take(slot, containerd::notice(envelope)),
            Ok(None) => return Status::unavailable("it has ended"),
            Err(status) => return status,
        }
        taken += 1;
        if taken == MOST_OF_A_TURN {
            sleep_until(turn + TURN).await;
            (turn, taken) = (Instant::now(), 0);
        }
        next = stream.message().await;
    }
}

fn take(slot: &Slot, notice: Option<Notice>) {
    let mut source = lock(&slot.source);
    source.hear(1);
    match notice {
        Some(Notice::Begins(id)) if source.take_begin(&id) => slot.asked.notify_one(),
        Some(Notice::Ended(id, at)) => {
            source.take_end(&id, at);
            // its pod may have given its address back
            slot.asked.notify_one();
        }
        Some(Notice::Begins(_)) | None => {}
    }
}
