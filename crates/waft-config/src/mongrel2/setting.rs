//! The table `setting`.

use super::Reading;
use crate::value::{ByteSize, OctalMode};

impl Reading<'_> {
    /// Takes in one setting; the error says what was expected.
    pub(super) fn setting(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let mongrel2 = &mut self.plan.mongrel2;
        match key {
            // That of the server goes before it.
            "control_port" if !self.server.control_port.is_empty() => {}
            "control_port" => mongrel2.control = Some(value.to_owned()),
            "disable.access_logging" => {
                if flag(value)? {
                    mongrel2.access_log = None;
                }
            }
            "download.flow_control" => mongrel2.download_credits = flag(value)?,
            "limits.content_length" => mongrel2.body_max = ByteSize(number(value)?),
            "limits.handler_targets" => {
                let count = usize::try_from(number(value)?).ok().and_then(std::num::NonZeroUsize::new);
                mongrel2.ids_max = count.ok_or("a number of connections")?;
            }
            "no_clobber_xff" => mongrel2.replace_forwarded_for = !flag(value)?,
            "upload.stream" => mongrel2.upload_stream = flag(value)?,
            "upload.temp_store" => mongrel2.upload_store = (!value.is_empty()).then(|| value.into()),
            "upload.temp_store_mode" => {
                mongrel2.upload_mode =
                    value.trim_start_matches("0o").parse::<OctalMode>().map_err(|_| "octal permissions")?;
            }
            "certdir" => self.plan.server.tls_certs = (!value.is_empty()).then(|| value.into()),
            // Read by whoever starts the process.
            "server.daemonize" => {
                flag(value)?;
            }
            "limits.buffer_size" => {
                // Larger heads than Mongrel2 takes are never refused for their sake.
                let bytes = number(value)?.max(self.plan.limits.header_bytes.0);
                self.plan.limits.header_bytes = ByteSize(bytes);
            }
            _ => self.without_meaning(key),
        }
        Ok(())
    }

    fn without_meaning(&mut self, key: &str) {
        let why = match key {
            "zeromq.threads" => "one thread moves all messages of ZeroMQ",
            "request.relaxed" => "the parser of requests has no relaxed mode",
            "net.tcp_keepalive" => "connections that fall silent are ended by limits.idle_timeout",
            "ssl_ciphers" => "the ciphers are those that the TLS library holds to be safe",
            "ssl.ca_chain" => "the certificate file holds the chain, too",
            "ssl.verify_optional" | "ssl.verify_required" => {
                "client certificates are asked for by the native configuration"
            }
            "limits.min_ping"
            | "limits.min_write_rate"
            | "limits.min_read_rate"
            | "limits.kill_limit"
            | "limits.tick_timer" => {
                "no connection is ended for being slow or silent while a handler may still answer it; see limits.idle_timeout and limits.write_stall_timeout"
            }
            "limits.client_read_retries" => {
                "a request head has limits.header_timeout to arrive, in any number of pieces"
            }
            "limits.header_count" => "see limits.header_fields",
            "limits.host_name" | "limits.url_path" | "limits.dir_max_path" | "limits.mime_ext_len" => {
                "the head of a request is limited as a whole"
            }
            "superpoll.max_fd" => "the number of connections is server.client_max",
            "limits.connection_stack_size"
            | "limits.fdtask_stack"
            | "limits.handler_stack"
            | "limits.dir_send_buffer"
            | "limits.proxy_read_retries"
            | "limits.proxy_read_retry_warn"
            | "superpoll.hot_dividend" => "it sizes the insides of Mongrel2",
            _ => "it is unknown",
        };
        self.note(&format!("setting {key}"), why);
    }
}

fn flag(value: &str) -> Result<bool, &'static str> {
    Ok(number(value).map_err(|_| "0 or 1")? != 0)
}

fn number(value: &str) -> Result<u64, &'static str> {
    value.trim().parse().map_err(|_| "a number")
}
