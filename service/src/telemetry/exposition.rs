//! Metrics as text: OpenMetrics 1.0, as the registry writes it, and Prometheus' own format 0.0.4, for whoever
//! does not ask for OpenMetrics.

/// The format in which metrics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Exposition {
    /// The format that a request's header `Accept` asks for: OpenMetrics only where it is named.
    pub fn accepted(accept: &str) -> Self {
        let named = accept.split(',').filter_map(|range| range.split(';').next());
        if named.map(str::trim).any(|name| name.eq_ignore_ascii_case("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics as Prometheus' text format: samples are the same; a family there has the name of its samples,
/// and is of no type that OpenMetrics has added.
pub(super) fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                text += &format!("# HELP {name}{suffix} {help}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Exposition::accepted(prometheus), Exposition::OpenMetrics);
        for other in ["", "*/*", "text/plain", "text/html,application/xml;q=0.9"] {
            assert_eq!(Exposition::accepted(other), Exposition::Text, "{other}");
        }
    }

    #[test]
    fn a_family_has_the_name_of_its_samples() {
        let open_metrics = "# HELP shop_orders Orders.\n# TYPE shop_orders counter\n\
            shop_orders_total{a=\"b\"} 1\n\
            # HELP shop_build Build.\n# TYPE shop_build info\nshop_build_info{version=\"1\"} 1\n\
            # HELP wait_seconds Wait.\n# TYPE wait_seconds gauge\n\
            # UNIT wait_seconds seconds\nwait_seconds 2\n\
            # EOF\n";
        let text = "# HELP shop_orders_total Orders.\n# TYPE shop_orders_total counter\n\
            shop_orders_total{a=\"b\"} 1\n\
            # HELP shop_build_info Build.\n# TYPE shop_build_info gauge\nshop_build_info{version=\"1\"} 1\n\
            # HELP wait_seconds Wait.\n# TYPE wait_seconds gauge\nwait_seconds 2\n";
        assert_eq!(as_text(open_metrics), text);
    }
}
