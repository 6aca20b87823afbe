//! Parses the values of variables, each in the form that the specification defines.

use std::time::Duration;

use super::{Batches, ClientCertificate, Protocol, Sampling, SettingsError};

/// Looks up variables by their names.
pub(super) struct Variables<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The value of a variable. An empty one counts as not set (SDK, "Parsing empty value").
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }

    /// The variable for spans, otherwise the one for all signals. Returns its name too.
    pub(super) fn of_traces(&self, what: &str) -> (String, Option<String>) {
        let own = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
        match self.get(&own) {
            Some(value) => (own, Some(value)),
            None => {
                let shared = format!("OTEL_EXPORTER_OTLP_{what}");
                let value = self.get(&shared);
                (shared, value)
            }
        }
    }

    /// Whether messages are compressed. The library reads these variables itself. It accepts only one of the two
    /// compressions of the specification, and neither `none` nor an empty text. What it does not accept is refused
    /// here, with an error that names the variable.
    pub(super) fn is_compressed(&self) -> Result<bool, SettingsError> {
        for name in [
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ] {
            match (self.0)(name).as_deref() {
                None => {}
                Some("gzip") => return Ok(true),
                Some(other) => {
                    return Err(wrong(name, other, "gzip, or that it is not set at all"));
                }
            }
        }
        Ok(false)
    }

    pub(super) fn client(
        &self,
        protocol: Protocol,
    ) -> Result<Option<ClientCertificate>, SettingsError> {
        const GRPC: &str =
            "it with the protocol grpc alone; with http/protobuf no certificate is shown";
        let (certificate_name, certificate) = self.of_traces("CLIENT_CERTIFICATE");
        let (key_name, key) = self.of_traces("CLIENT_KEY");
        let given = [(&certificate_name, &certificate), (&key_name, &key)];
        for (name, file) in given {
            if let Some(file) = file
                && protocol != Protocol::Grpc
            {
                return Err(wrong(name, file, GRPC));
            }
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificate {
                certificate: certificate.into(),
                key: key.into(),
            })),
            (Some(certificate), None) => Err(wrong(
                &certificate_name,
                &certificate,
                "OTEL_EXPORTER_OTLP_CLIENT_KEY beside it",
            )),
            (None, Some(key)) => Err(wrong(
                &key_name,
                &key,
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE beside it",
            )),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn switch(&self, name: &str) -> Result<bool, SettingsError> {
        match self.get(name).map(|it| it.to_ascii_lowercase()).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    pub(super) fn sampling(&self) -> Result<Sampling, SettingsError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        const SHARE: &str = "a share of the traces, from 0.0 to 1.0";
        let ratio = || match self.get(ARGUMENT) {
            None => Ok(1.0),
            Some(value) => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
                _ => Err(wrong(ARGUMENT, &value, SHARE)),
            },
        };
        let name = self.get(NAME);
        let (ratio, follows_parent) = match name.as_deref() {
            None | Some("parentbased_always_on") => (1.0, true),
            Some("parentbased_always_off") => (0.0, true),
            Some("parentbased_traceidratio") => (ratio()?, true),
            Some("always_on") => (1.0, false),
            Some("always_off") => (0.0, false),
            Some("traceidratio") => (ratio()?, false),
            Some(other) => {
                return Err(wrong(
                    NAME,
                    other,
                    "always_on, always_off, traceidratio, or one of these behind parentbased_",
                ));
            }
        };
        Ok(Sampling {
            ratio,
            follows_parent,
        })
    }

    /// The defaults are those of the specification, "Batch Span Processor".
    pub(super) fn batches(&self, timeout: Option<Duration>) -> Result<Batches, SettingsError> {
        const COUNT: &str = "a whole number from 1 on";
        let time = |name: &str, default: u64| match self.get(name) {
            None => Ok(Duration::from_millis(default)),
            Some(value) => milliseconds(name, &value),
        };
        let count = |name: &str, default: usize| match self.get(name) {
            None => Ok(default),
            Some(value) => match value.parse::<usize>() {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(wrong(name, &value, COUNT)),
            },
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?;
        let limit = time("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?;
        Ok(Batches {
            delay: time("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
            queue,
            size: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue),
            time_limit: timeout.unwrap_or(Duration::from_secs(10)).min(limit),
        })
    }
}

pub(super) fn milliseconds(name: &str, value: &str) -> Result<Duration, SettingsError> {
    match value.parse::<u64>() {
        Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(wrong(name, value, "milliseconds, from 1 on")),
    }
}

/// `name=value` pairs separated by commas. Values may be percent-encoded (W3C Baggage, which OpenTelemetry prescribes).
pub(super) fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    const FORM: &str = "name=value pairs between commas";
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value = decoded(value.trim()).ok_or_else(|| wrong(name, "…", FORM))?;
                Ok((key.trim().to_owned(), value))
            }
            // The value may be a credential, so the error does not contain it.
            _ => Err(wrong(name, "…", FORM)),
        })
        .collect()
}

/// Percent-decoding (RFC 3986, section 2.1); `None` if the encoding is invalid or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn wrong(name: &str, value: &str, expected: &'static str) -> SettingsError {
    SettingsError {
        name: name.to_owned(),
        value: value.to_owned(),
        expected,
    }
}
