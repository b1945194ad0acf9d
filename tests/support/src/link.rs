//! The network between two peers, as bad as a test needs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How much later a lost piece comes: about what a TCP takes to send it again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How many pieces may be under way in one direction; beyond that, the sender waits.
const UNDER_WAY: usize = 256;

/// Passes connections on to an address; dropping it ends them.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    state: watch::Sender<State>,
    late: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct State {
    to: SocketAddr,
    weather: Weather,
    /// Counts what was delayed or lost.
    late: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    Fair,
    Delay(Duration),
    Loss(usize),
    Silence,
    Cut,
}

impl Link {
    /// A link to this address, from a port of the loopback interface.
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let late = Arc::<AtomicUsize>::default();
        let (state, seen) = watch::channel(State { to, weather: Weather::Fair, late: Arc::clone(&late) });
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                open.spawn(connection(caller, seen.clone()));
            }
        });
        Self { addr, state, late, accepting }
    }

    /// Where callers connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections that are made from now on lead to this address.
    pub fn lead_to(&self, to: SocketAddr) {
        self.state.send_modify(|state| state.to = to);
    }

    /// What is sent from now on arrives so much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.turn(Weather::Delay(delay));
    }

    /// Of what is sent from now on, every `nth` piece is lost and sent again 200 ms later; what follows it waits for it.
    pub fn lose(&self, nth: usize) {
        self.turn(Weather::Loss(nth));
    }

    /// How many pieces have come late so far, since they were delayed or lost.
    pub fn late(&self) -> usize {
        self.late.load(Ordering::Relaxed)
    }

    /// Nothing arrives any more, and nobody is told.
    pub fn silence(&self) {
        self.turn(Weather::Silence);
    }

    /// All connections are reset, and so is each that is made from now on.
    pub fn cut(&self) {
        self.turn(Weather::Cut);
    }

    /// The network is well again; what was held up by a silence arrives.
    pub fn heal(&self) {
        self.turn(Weather::Fair);
    }

    fn turn(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(mut caller: TcpStream, state: watch::Receiver<State>) {
    let to = state.borrow().to;
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let _ = caller.set_nodelay(true).and(server.set_nodelay(true));
    let (hears_caller, tells_caller) = caller.split();
    let (hears_server, tells_server) = server.split();
    let both = async {
        let there = carry(hears_caller, tells_server, state.clone());
        let back = carry(hears_server, tells_caller, state.clone());
        tokio::join!(there, back)
    };
    let mut seen = state.clone();
    let is_cut = tokio::select! {
        _ = both => false,
        // Where nobody can tell any more, the link itself is gone: that cuts as well.
        _ = seen.wait_for(|state| state.weather == Weather::Cut) => true,
    };
    if is_cut {
        // A reset, and no orderly end.
        let _ = caller.set_zero_linger().and(server.set_zero_linger());
    }
}

/// Carries what one end says to the other, in order, when it is due.
async fn carry(from: ReadHalf<'_>, to: WriteHalf<'_>, state: watch::Receiver<State>) {
    let (sent, due) = mpsc::channel(UNDER_WAY);
    tokio::join!(hear(from, sent, state.clone()), say(to, due, state));
}

type Piece = (Instant, Vec<u8>);

async fn hear(mut from: ReadHalf<'_>, sent: mpsc::Sender<Piece>, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut pieces = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        pieces += 1;
        let late = {
            let State { weather, late, .. } = &*state.borrow();
            let by = match weather {
                Weather::Delay(delay) => *delay,
                Weather::Loss(nth) if pieces % nth == 0 => RETRANSMISSION,
                _ => Duration::ZERO,
            };
            late.fetch_add(usize::from(!by.is_zero()), Ordering::Relaxed);
            by
        };
        let piece = buffer.get(..length).unwrap_or_default().to_vec();
        if sent.send((Instant::now() + late, piece)).await.is_err() {
            return;
        }
    }
}

async fn say(mut to: WriteHalf<'_>, mut due: mpsc::Receiver<Piece>, mut state: watch::Receiver<State>) {
    while let Some((at, piece)) = due.recv().await {
        sleep_until(at).await;
        no_silence(&mut state).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    no_silence(&mut state).await;
    // Who has gone needs no end.
    let _ = to.shutdown().await;
}

/// Ends when something arrives again, were it only the end.
async fn no_silence(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|state| state.weather != Weather::Silence).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection through a link to somebody who says everything back.
    async fn echoed() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let link = Link::to(listener.local_addr().expect("it is bound")).await;
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut hears, mut tells) = socket.split();
                    let _ = tokio::io::copy(&mut hears, &mut tells).await;
                });
            }
        });
        let caller = TcpStream::connect(link.addr()).await.expect("the link takes it");
        (link, caller)
    }

    async fn echo(caller: &mut TcpStream) -> std::io::Result<Duration> {
        let begin = Instant::now();
        caller.write_all(b"x").await?;
        caller.read_exact(&mut [0]).await?;
        Ok(begin.elapsed())
    }

    #[tokio::test]
    async fn a_link_delays_loses_falls_silent_is_cut_and_heals() {
        let (link, mut caller) = echoed().await;
        let mut leaving = TcpStream::connect(link.addr()).await.expect("the link takes it");
        echo(&mut leaving).await.expect("a fair wind");
        echo(&mut caller).await.expect("a fair wind");
        assert_eq!(link.late(), 0);
        link.delay(Duration::from_millis(50));
        let slow = echo(&mut caller).await.expect("a slow one");
        assert!(slow >= Duration::from_millis(100), "{slow:?}");
        assert_eq!(link.late(), 2, "there and back");
        link.lose(1);
        let lossy = echo(&mut caller).await.expect("a lossy one");
        assert!(lossy >= 2 * RETRANSMISSION, "{lossy:?}");
        assert_eq!(link.late(), 4);
        link.silence();
        let silent = tokio::time::timeout(Duration::from_millis(300), echo(&mut caller)).await;
        assert!(silent.is_err());
        leaving.shutdown().await.expect("it is open");
        let told = tokio::time::timeout(Duration::from_millis(300), leaving.read(&mut [0])).await;
        assert!(told.is_err(), "an end arrives, too: {told:?}");
        link.heal();
        caller.read_exact(&mut [0]).await.expect("what was held up arrives");
        assert_eq!(leaving.read(&mut [0]).await.expect("the end does"), 0);
        link.cut();
        let told = caller.read(&mut [0]).await;
        assert!(matches!(told, Err(_) | Ok(0)), "{told:?}");
        let mut refused = TcpStream::connect(link.addr()).await.expect("it is taken, and then reset");
        assert!(echo(&mut refused).await.is_err());
        link.heal();
        let mut again = TcpStream::connect(link.addr()).await.expect("the link takes it");
        echo(&mut again).await.expect("well again");
    }
}
