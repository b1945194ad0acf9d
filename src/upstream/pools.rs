//! Connection pools that outlive a configuration.

use super::{Client, ClientSettings};

/// The connection pools of one configuration. The next one goes on with those of providers whose settings have not
/// changed: a reload must not cost every provider its warm connections.
#[derive(Clone, Debug, Default)]
pub struct Pools(Vec<Pool>);

#[derive(Clone, Debug)]
struct Pool {
    provider: Box<str>,
    settings: ClientSettings,
    client: Client,
}

impl Pools {
    /// The pool of a provider: as it was in an `earlier` configuration, or a new one.
    ///
    /// # Errors
    /// When TLS refuses the settings.
    pub fn open(
        &mut self,
        provider: &str,
        settings: ClientSettings,
        earlier: &Self,
    ) -> Result<Client, rustls::Error> {
        let known = earlier.0.iter().find(|pool| *pool.provider == *provider && pool.settings == settings);
        let pool = match known {
            Some(pool) => pool.clone(),
            None => {
                let client = Client::new(settings.clone())?;
                Pool { provider: provider.into(), settings, client }
            }
        };
        let client = pool.client.clone();
        self.0.push(pool);
        Ok(client)
    }
}
