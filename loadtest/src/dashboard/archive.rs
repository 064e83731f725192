//! Past runs, kept in a directory: they survive the dashboard.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::experiments::ExperimentReport;
use crate::report::{Report, RunReport};
use crate::series::Series;
use crate::shop::ShopReport;

/// How many past runs are kept; the oldest go first.
const KEPT: usize = 200;

/// The file of the names.
const NAMES: &str = "names.json";

/// Past runs and experiments.
#[derive(Debug)]
pub(super) struct Archive {
    runs: PathBuf,
    experiments: PathBuf,
    shops: PathBuf,
    index: BTreeMap<String, Entry>,
    /// What people have called suites.
    names: BTreeMap<String, String>,
    /// Where these are kept: a suite is not written again to be called otherwise.
    names_in: PathBuf,
    /// What each experiment has shown the last time.
    trials: BTreeMap<String, Trial>,
    /// The headlines of loads on shops.
    shop_index: BTreeMap<String, String>,
}

/// What an experiment has shown.
#[derive(Debug)]
pub(super) struct Trial {
    /// The report.
    pub(super) report: ExperimentReport,
    /// The drawing of its events, once it has been wanted: it is the same for all pages.
    pub(super) drawn: OnceLock<String>,
}

/// A suite as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// When it began.
    pub(super) at: Timestamp,
    /// The form that it was started with.
    pub(super) form: String,
    /// What it has shown.
    pub(super) report: Report,
}

/// A suite in a list.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// When it began.
    pub(super) at: Timestamp,
    /// The form that it was started with.
    pub(super) form: String,
    /// Its runs without their course; of that, there is only how many updates were lost.
    pub(super) runs: Vec<RunReport>,
}

/// `$XDG_STATE_HOME/stocklock`, or what stands for it.
pub(super) fn usual_place() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("stocklock"))
}

impl Archive {
    /// Opens a directory, and makes it where there is none. A file that cannot be read is left alone.
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let [runs, experiments, shops] = ["runs", "experiments", "shops"].map(|name| directory.join(name));
        for directory in [&runs, &experiments, &shops] {
            std::fs::create_dir_all(directory)?;
        }
        let index = all_in::<Kept>(&runs)?.map(|(id, kept)| (id, Entry::of(&kept))).collect();
        let shop_index = all_in::<ShopReport>(&shops)?.map(|(id, report)| (id, report.headline)).collect();
        let names = read(&directory.join(NAMES)).unwrap_or_default();
        let names_in = directory.to_owned();
        let trials = all_in::<ExperimentReport>(&experiments)?;
        let trials = trials.map(|(id, report)| (id, Trial { report, drawn: OnceLock::new() })).collect();
        Ok(Self { runs, experiments, shops, index, names, names_in, trials, shop_index })
    }

    /// Keeps a load on a shop under `id`.
    pub(super) fn keep_shop(&mut self, id: &str, report: &ShopReport) -> anyhow::Result<()> {
        write(&self.shops, &format!("{id}.json"), report)?;
        self.shop_index.insert(id.into(), report.headline.clone());
        while self.shop_index.len() > KEPT
            && let Some((oldest, _)) = self.shop_index.pop_first()
        {
            std::fs::remove_file(self.shops.join(format!("{oldest}.json"))).ok();
        }
        Ok(())
    }

    /// All loads on shops with their headlines, the latest first.
    pub(super) fn shops(&self) -> impl Iterator<Item = (&String, &String)> {
        self.shop_index.iter().rev()
    }

    /// A load on a shop. Only what is in the list can be asked for: no id is a path.
    pub(super) fn shop(&self, id: &str) -> Option<ShopReport> {
        self.shop_index.contains_key(id).then(|| read(&self.shops.join(format!("{id}.json"))))?
    }

    /// Keeps a suite under `id`.
    pub(super) fn keep(&mut self, id: &str, kept: &Kept) -> anyhow::Result<()> {
        write(&self.runs, &format!("{id}.json"), kept)?;
        self.index.insert(id.into(), Entry::of(kept));
        while self.index.len() > KEPT
            && let Some((oldest, _)) = self.index.pop_first()
        {
            std::fs::remove_file(self.runs.join(format!("{oldest}.json"))).ok();
            self.names.remove(&oldest);
        }
        Ok(())
    }

    /// What somebody has called a suite; empty where nobody has.
    pub(super) fn name(&self, id: &str) -> &str {
        self.names.get(id).map_or("", String::as_str)
    }

    /// Calls a suite in the list something; nothing, where the name is empty.
    pub(super) fn rename(&mut self, id: &str, name: &str) -> anyhow::Result<()> {
        if self.index.contains_key(id) {
            self.write_names(|names| {
                names.insert(id.into(), name.into());
                names.retain(|_, name| !name.is_empty());
            })?;
        }
        Ok(())
    }

    /// Changes the names as they are in the file: another dashboard may have the same directory. A file that
    /// cannot be read is not written over.
    fn write_names(&mut self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> anyhow::Result<()> {
        let path = self.names_in.join(NAMES);
        let mut names = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("cannot read {NAMES}"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {NAMES}")),
        };
        change(&mut names);
        write(&self.names_in, NAMES, &names)?;
        self.names = names;
        Ok(())
    }

    /// Deletes a suite in the list for good.
    pub(super) fn delete(&mut self, id: &str) -> anyhow::Result<()> {
        if self.index.contains_key(id) {
            let name = format!("{id}.json");
            match std::fs::remove_file(self.runs.join(&name)) {
                // Somebody else has deleted it: so it is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                outcome => outcome.with_context(|| format!("cannot delete {name}"))?,
            }
            self.index.remove(id);
            self.write_names(|names| drop(names.remove(id)))?;
        }
        Ok(())
    }

    /// All suites, the latest first.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.index.iter().rev()
    }

    /// A suite in the list. Only what is in the list can be asked for: no id is a path.
    pub(super) fn entry(&self, id: &str) -> Option<&Entry> {
        self.index.get(id)
    }

    /// A suite.
    pub(super) fn load(&self, id: &str) -> Option<Kept> {
        self.index.contains_key(id).then(|| read(&self.runs.join(format!("{id}.json"))))?
    }

    /// Keeps what an experiment has shown.
    pub(super) fn keep_experiment(&mut self, report: ExperimentReport) -> anyhow::Result<()> {
        let kept = write(&self.experiments, &format!("{}.json", report.name), &report);
        self.trials.insert(report.name.clone(), Trial { report, drawn: OnceLock::new() });
        kept
    }

    /// What an experiment has shown the last time.
    pub(super) fn experiment(&self, name: &str) -> Option<&Trial> {
        self.trials.get(name)
    }
}

impl Entry {
    fn of(kept: &Kept) -> Self {
        let counts = |series: &Series| Series { lost_updates: series.lost_updates, ..Series::default() };
        let without_course =
            |run: &RunReport| RunReport { series: run.series.as_ref().map(counts), ..run.clone() };
        let runs = kept.report.runs.iter().map(without_course).collect();
        Self { at: kept.at, form: kept.form.clone(), runs }
    }
}

/// All files of a directory that can be read, with their ids.
fn all_in<T: DeserializeOwned>(directory: &Path) -> anyhow::Result<impl Iterator<Item = (String, T)>> {
    let files = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    Ok(files.into_iter().filter_map(|file| {
        let path = file.path();
        let id = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
        Some((id, read(&path)?))
    }))
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a file so that whoever reads it finds all of it or none.
fn write(directory: &Path, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name)).with_context(|| format!("cannot write {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let report = Report::new(Vec::new(), Vec::new());
        let kept = Kept { at: Timestamp::UNIX_EPOCH, form: "stock=1".into(), report };
        let mut archive = Archive::open(directory.path()).unwrap();
        for number in 0..KEPT + 3 {
            archive.keep(&format!("{number:04}"), &kept).unwrap();
        }
        std::fs::write(directory.path().join("runs/torn.json"), "{").unwrap();
        let again = Archive::open(directory.path()).unwrap();
        let ids: Vec<_> = again.all().map(|(id, _)| id.clone()).collect();
        assert_eq!((ids.len(), ids[0].as_str()), (KEPT, "0202"));
        assert_eq!(again.load("0202").map(|kept| kept.form), Some("stock=1".into()));
        assert!(again.load("0000").is_none() && again.load("../runs/0202").is_none());
    }

    #[test]
    fn suites_have_names_and_can_be_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let report = Report::new(Vec::new(), Vec::new());
        let kept = Kept { at: Timestamp::UNIX_EPOCH, form: String::new(), report };
        let mut archive = Archive::open(directory.path()).unwrap();
        for id in ["1", "2", "3"] {
            archive.keep(id, &kept).unwrap();
            archive.rename(id, &format!("number {id}")).unwrap();
        }
        archive.rename("2", "").unwrap();
        archive.rename("../1", "nobody").unwrap();
        archive.delete("3").unwrap();
        archive.delete("../runs/1").unwrap();
        let again = Archive::open(directory.path()).unwrap();
        assert_eq!(again.all().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["2", "1"]);
        assert_eq!(["1", "2", "3", "../1"].map(|id| again.name(id)), ["number 1", "", "", ""]);
        assert!(again.load("1").is_some() && again.load("3").is_none());
    }
}
