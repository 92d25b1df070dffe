//! An address that stays while the server behind it comes back on another port with each start.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes on until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    server: Arc<Mutex<String>>,
    cuts: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Begins to pass connections on to the server at `host:port`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("no free port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no local address: {error}"));
        let server = Arc::new(Mutex::new(server.to_owned()));
        let cuts = watch::Sender::new(());
        let accepting = tokio::spawn(accept(listener, server.clone(), cuts.subscribe()));
        Self { address, server, cuts, accepting }
    }

    /// `http://host:port`, always the same.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, new connections go there.
    pub fn redirect(&self, server: &str) {
        server.clone_into(&mut lock(&self.server));
    }

    /// Breaks all connections there are. What has come to the server's side of them, the server still reads.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: Arc<Mutex<String>>, cuts: watch::Receiver<()>) {
    loop {
        let (inbound, _) = listener.accept().await.unwrap_or_else(|error| panic!("cannot accept: {error}"));
        let (server, mut cut) = (lock(&server).clone(), cuts.clone());
        cut.mark_unchanged();
        tokio::spawn(async move {
            tokio::select! {
                () = pass(inbound, &server) => {}
                // It fails when the relay is dropped: that is a cut too.
                _ = cut.changed() => {}
            }
        });
    }
}

/// Passes bytes both ways until either side ends. A server that is not there ends it at once.
async fn pass(mut inbound: TcpStream, server: &str) {
    if let Ok(mut outbound) = TcpStream::connect(server).await {
        for stream in [&inbound, &outbound] {
            // Only a matter of speed.
            let _ = stream.set_nodelay(true);
        }
        // It fails when a side is gone.
        let _ = copy_bidirectional(&mut inbound, &mut outbound).await;
    }
}

fn lock(server: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    server.lock().unwrap_or_else(|_| panic!("nothing panics with an address in hand"))
}
