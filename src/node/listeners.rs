//! The addresses that a node listens on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::config::ServeSettings;
use super::error::NodeError;
use crate::api::http::{Clients, Server, Services, operations, routes};

/// Maximum concurrent connections to the operations address.
const OPERATORS: usize = 64;

/// Listeners for the public and for operators.
pub(super) struct Listeners {
    server: Server,
    pub(super) address: SocketAddr,
    pub(super) operators: Option<Server>,
}

impl Listeners {
    /// Binds both addresses.
    pub(super) fn bind(settings: &ServeSettings) -> Result<Self, NodeError> {
        let listen =
            |address, clients| Server::bind(address, clients).map_err(|source| NodeError::Listen { address, source });
        let proxies = settings.trusted_proxies.clone();
        let clients = Clients::new(settings.max_connections, settings.max_connections_per_client, proxies);
        let server = listen(settings.listen, clients)?;
        let address = server.address().map_err(|source| NodeError::Listen { address: settings.listen, source })?;
        let operators = settings.operations_listen;
        let operators = operators.map(|address| listen(address, Clients::new(OPERATORS, OPERATORS, Vec::new())));
        Ok(Self { server, address, operators: operators.transpose()? })
    }

    /// Serves both until stopped.
    pub(super) async fn serve(self, services: Arc<Services>, stop: CancellationToken) {
        if self.operators.is_none() && !services.operations_are_public {
            tracing::info!(
                "not serving metrics or the reasons of /readyz; set HOOKLEDGER_OPERATIONS_LISTEN to serve them"
            );
        }
        let operating = async {
            if let Some(operators) = self.operators {
                operators.run(operations(Arc::clone(&services)), stop.clone()).await;
            }
        };
        tokio::join!(self.server.run(routes(Arc::clone(&services)), stop.clone()), operating);
    }
}
