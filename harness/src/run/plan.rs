//! From an experiment to its trials: grids are multiplied out and every parameter is checked before anything runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use xmbench_methods::Method;

use super::{Experiment, Methods, entry::MethodEntry, files::Checksums, stages, stated::stated};
use crate::record::{Control, ENSEMBLE, RERANK, check, words};

/// A trial of an experiment on any of its datasets.
#[derive(Clone)]
pub struct Planned {
    /// Position of the method's entry in the experiment.
    pub position: usize,
    /// Row label.
    pub label: String,
    /// What is done.
    pub job: Job,
    /// Complete parameters; an array holds the values of one that is selected.
    pub params: toml::Table,
    /// Checksums of the files that parameters name, for every seed; none where none does.
    pub files: Arc<Checksums>,
    /// What is done on datasets for which the row was tuned: settings and complete parameters in place of those here.
    pub tuned: Arc<BTreeMap<String, Settings>>,
    /// The parameters that the grid varies, [`TRAINING_IMAGES`] among them.
    pub swept: BTreeMap<String, String>,
    /// How many training images there are; all of them when absent.
    pub images: Option<usize>,
    /// Root seed.
    pub seed: u64,
    /// Whether the pairs are shuffled.
    pub control: Control,
    /// Whether a gallery is scored; otherwise the trial fits what others order shortlists with.
    pub scored: bool,
}

/// What tables and plots call the number of training images where an experiment varies it.
pub const TRAINING_IMAGES: &str = "training images";
/// Complete parameters of every setting, and all of them in one table.
pub type Settings = (Vec<toml::Table>, toml::Table);

/// What a trial does.
#[derive(Clone)]
pub enum Job {
    /// Fits a method.
    Fit {
        /// The method.
        method: &'static dyn Method,
        /// Complete parameters of every setting that the trial selects among, the last parameter varying fastest; one if it does
        /// not select.
        settings: Vec<toml::Table>,
    },
    /// Scores with what other trials fitted.
    Combine(Combined),
}

/// How fitted trials, by their places in the plan, score together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// The mean of these, of the first stage if there are two.
    pub first: Vec<usize>,
    /// The mean of these orders so many items anew.
    pub second: Option<(Vec<usize>, usize)>,
}

impl Combined {
    /// The places of all trials that take part, each once.
    pub fn members(&self) -> Vec<usize> {
        let second = self.second.iter().flat_map(|(places, _)| places);
        let mut members = Vec::new();
        for &place in self.first.iter().chain(second) {
            if !members.contains(&place) {
                members.push(place);
            }
        }
        members
    }
}

impl Planned {
    /// The row as tables name it.
    pub fn row(&self) -> String {
        words::label(&self.label, &self.swept)
    }

    /// The trial on a dataset, by the names that the experiment has for it: with what was tuned for the first of them that is known.
    pub fn on(&self, dataset: &[String]) -> Self {
        let mut on = self.clone();
        let tuned = dataset.iter().find_map(|name| self.tuned.get(name));
        if let (Job::Fit { settings, .. }, Some((tuned, params))) = (&mut on.job, tuned) {
            (*settings, on.params) = (tuned.clone(), params.clone());
        }
        on
    }

    /// What the method's pair scorer measures beside the scores.
    pub fn measures(&self) -> &[String] {
        match &self.job {
            Job::Fit { method, .. } => &method.card().measures,
            Job::Combine(_) => &[],
        }
    }

    /// What a recording keeps of the parameters, and a trial's identity has: with the checksums of the files that they name, and the
    /// number of training images.
    pub fn recorded(&self) -> toml::Table {
        let mut params = self.params.clone();
        if let Some(sums) = self.files.get(&self.seed) {
            params.insert("sha256".into(), sums.clone().into());
        }
        if let Some(images) = self.images {
            params.insert(TRAINING_IMAGES.into(), toml::Value::try_from(images).expect("a number of images"));
        }
        params
    }

    /// What a recording calls the method: its name, [`record::ENSEMBLE`](crate::record::ENSEMBLE) or
    /// [`record::RERANK`](crate::record::RERANK).
    pub fn method(&self) -> &str {
        match &self.job {
            Job::Fit { method, .. } => &method.card().name,
            Job::Combine(Combined { second: None, .. }) => ENSEMBLE,
            Job::Combine(_) => RERANK,
        }
    }
}

/// Every trial of the experiment, entry by entry, grid point by grid point, seed by seed, and then seed by seed again on
/// shuffled pairs where the entry asks for that control. Trials that are made of others come after all of these.
///
/// # Errors
/// An unknown method, an unknown or bad parameter, two entries that are one, or rows that cannot be made of others as they say.
pub fn plan(experiment: &Experiment, methods: &Methods) -> Result<Vec<Planned>> {
    let mut trials = Vec::new();
    let (mut rows, mut known) = (BTreeSet::new(), BTreeSet::new());
    let sizes: Vec<Option<usize>> = match experiment.training_images.as_slice() {
        [] => vec![None],
        sizes => sizes.iter().copied().map(Some).collect(),
    };
    for (position, entry) in experiment.methods.iter().enumerate() {
        let named = || format!("experiment {}, methods entry {}", experiment.name, position + 1);
        let method = methods.find(&entry.method).with_context(named)?;
        let label = entry.label.clone().unwrap_or_else(|| method.card().label.clone());
        let params = with_common(&experiment.common, entry, method).with_context(named)?;
        known.extend(method.resolve(&toml::Table::new()).with_context(named)?.into_iter().map(|(key, _)| key));
        if let Some(key) = entry.select.iter().find(|key| !params.contains_key(*key)) {
            let hint = super::nearest(key, params.keys().map(String::as_str));
            bail!("{}: `select` names `{key}`, which has no values here{hint}", named());
        }
        let scores = if !entry.select.is_empty() { "`select`" } else { "`shuffled`" };
        if entry.shortlists_only && (entry.shuffled || !entry.select.is_empty()) {
            bail!("{}: {scores} needs scores of a gallery, of which there are none with `shortlists_only`", named());
        }
        let selected = |key: &str| entry.select.iter().any(|name| name == key);
        for (point, swept) in grid(&params, |key| !selected(key)).with_context(named)? {
            let mut files = Checksums::new();
            let mut complete = |point: &toml::Table| -> Result<Settings> {
                // What the first pass left an array is the value of a parameter that takes arrays.
                let settings = grid(point, selected)?.into_iter();
                let mut settings: Vec<toml::Table> =
                    settings.map(|(params, _)| method.resolve(&params)).collect::<Result<_, _>>()?;
                let params = together(&settings);
                for setting in &mut settings {
                    for (seed, sums) in experiment.places.find(method, setting, &experiment.seeds)? {
                        merge(files.entry(seed).or_default(), sums);
                    }
                }
                Ok((settings, params))
            };
            let (settings, params) = complete(&point).with_context(named)?;
            let mut tuned = BTreeMap::new();
            if let Some(taken) = &experiment.tuned {
                let row = words::label(&label, &swept);
                for (dataset, found) in taken.of_row(&row, entry, method)? {
                    let point = point.clone().into_iter().chain(found).collect();
                    let context = || format!("{}: row `{row}` on {dataset}", taken.file);
                    tuned.insert(dataset.clone(), complete(&point).with_context(context)?);
                }
            }
            let (files, tuned) = (Arc::new(files), Arc::new(tuned));
            for &images in &sizes {
                let mut swept = swept.clone();
                swept.extend(images.map(|images| (TRAINING_IMAGES.to_string(), images.to_string())));
                if !rows.insert((label.clone(), swept.clone())) {
                    bail!(
                        "{}: the label `{label}` is taken by an earlier entry; give this one a `label` of its own",
                        named()
                    );
                }
                let of = |seed: u64, control: Control| Planned {
                    position,
                    label: label.clone(),
                    job: Job::Fit { method, settings: settings.clone() },
                    params: params.clone(),
                    files: files.clone(),
                    tuned: tuned.clone(),
                    swept: swept.clone(),
                    images,
                    seed,
                    control,
                    scored: !entry.shortlists_only,
                };
                for control in [Control::None].into_iter().chain(entry.shuffled.then_some(Control::Shuffled)) {
                    trials.extend(experiment.seeds.iter().map(|&seed| of(seed, control)));
                }
            }
        }
    }
    if let Some(key) = experiment.common.keys().find(|key| !known.contains(*key)) {
        let hint = super::nearest(key, known.iter().map(String::as_str));
        bail!("experiment {}: `common` names `{key}`, which is a parameter of no method of it{hint}", experiment.name);
    }
    experiment.tuned.as_ref().map_or(Ok(()), |taken| taken.check_rows(experiment, &trials))?;
    stages::append(experiment, &mut trials, &mut rows)?;
    for (label, value) in rows.iter().flat_map(|(label, swept)| swept.values().map(move |value| (label, value))) {
        // Values name rows of tables, and what is recorded must read back.
        check::name("a value that a grid varies", value).map_err(|wrong| {
            anyhow!("experiment {}, row `{label}`: expected {}, found {}", experiment.name, wrong.expected, wrong.found)
        })?;
    }
    stated(experiment, &trials)?;
    Ok(trials)
}

/// The trials of a plan that are wanted, and those that they are made of, which then lie before them.
pub fn only(plan: &[Planned], wanted: impl Fn(&Planned) -> bool) -> Vec<Planned> {
    let mut kept = BTreeSet::new();
    for (place, planned) in plan.iter().enumerate().filter(|(_, planned)| wanted(planned)) {
        kept.insert(place);
        if let Job::Combine(combined) = &planned.job {
            kept.extend(combined.members());
        }
    }
    let places: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(new, &old)| (old, new)).collect();
    let moved = |members: &[usize]| members.iter().map(|old| places[old]).collect();
    let taken = |&place: &usize| {
        let mut planned = plan[place].clone();
        if let Job::Combine(Combined { first, second }) = &mut planned.job {
            *first = moved(first);
            if let Some((members, _)) = second {
                *members = moved(members);
            }
        }
        planned
    };
    kept.iter().map(taken).collect()
}

/// The entry's parameters, and those of the common ones that the method has.
fn with_common(common: &toml::Table, entry: &MethodEntry, method: &dyn Method) -> Result<toml::Table> {
    let mut params = entry.params.clone();
    let known = method.resolve(&toml::Table::new())?;
    for (key, value) in common.iter().filter(|(key, _)| known.contains_key(*key)) {
        params.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Ok(params)
}

/// Adds the checksums of another setting; where they differ, both count.
fn merge(all: &mut toml::Table, more: toml::Table) {
    for (key, sum) in more {
        match all.get_mut(&key) {
            None => drop(all.insert(key, sum)),
            Some(known) if *known == sum => {}
            Some(toml::Value::Array(sums)) if sums.contains(&sum) => {}
            Some(toml::Value::Array(sums)) => sums.push(sum),
            Some(known) => *known = toml::Value::Array(vec![known.clone(), sum]),
        }
    }
}

type Point = (toml::Table, BTreeMap<String, String>);

/// One table of the settings: an array of the values of each parameter in which they differ.
fn together(settings: &[toml::Table]) -> toml::Table {
    let mut table = settings[0].clone();
    for (key, value) in &mut table {
        let mut values: Vec<toml::Value> = Vec::new();
        for found in settings.iter().filter_map(|setting| setting.get(key)) {
            if !values.contains(found) {
                values.push(found.clone());
            }
        }
        if values.len() > 1 {
            *value = toml::Value::Array(values);
        }
    }
    table
}

/// Every combination of the values of those parameters that are arrays and `varied`, with what varies; the last one varies fastest.
fn grid(params: &toml::Table, varied: impl Fn(&str) -> bool) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = vec![Default::default()];
    for (key, value) in params {
        let choices = match value {
            kept if !varied(key) => std::slice::from_ref(kept),
            toml::Value::Array(values) if values.is_empty() => {
                bail!("parameter `{key}`: an empty array sweeps over nothing")
            }
            toml::Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        points = points
            .iter()
            .flat_map(|(params, swept)| {
                choices.iter().map(|choice| {
                    let (mut params, mut swept) = (params.clone(), swept.clone());
                    params.insert(key.clone(), choice.clone());
                    if choices.len() > 1 {
                        swept.insert(key.clone(), choice.as_str().map_or_else(|| choice.to_string(), str::to_string));
                    }
                    (params, swept)
                })
            })
            .collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_multiply_and_singles_do_not_count_as_swept() {
        let params = toml::toml! { bits = [16, 32]
        mode = ["a", "b", "c"]
        only = [7]
        plain = 1.5 };
        let points = grid(&params, |_| true).unwrap();
        assert_eq!(points.len(), 6);
        let (params, swept) = &points[1];
        assert_eq!(
            *params,
            toml::toml! { bits = 16
            mode = "b"
            only = 7
            plain = 1.5 }
        );
        assert_eq!(*swept, BTreeMap::from([("bits".into(), "16".into()), ("mode".into(), "b".into())]));
    }

    #[test]
    fn an_array_of_arrays_sweeps_over_arrays() {
        let points = grid(&toml::toml! { hidden = [[512, 256]] }, |_| true).unwrap();
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].0, toml::toml! { hidden = [512, 256] });
    }

    #[test]
    fn nothing_to_sweep_over_is_an_error() {
        assert!(grid(&toml::toml! { bits = [] }, |_| true).is_err());
    }

    fn settings(planned: &Planned) -> &[toml::Table] {
        let Job::Fit { settings, .. } = &planned.job else { panic!("`{}` is fitted", planned.label) };
        settings
    }

    fn planned(entry: &str) -> Result<Vec<Planned>> {
        let text = format!(
            "title = 'x'\nseeds = [1, 2]\nprotocol = {{ task = {{ kind = 'pairs' }} }}\n[[datasets]]\nname = 'emoji'\n\
             [[methods]]\nmethod = 'cca'\n{entry}"
        );
        let experiment = Experiment::parse("x", "x.toml", &text, super::super::Profile::Quick)?;
        plan(&experiment, &Methods::with(&[]))
    }

    #[test]
    fn selected_parameters_are_settings_of_one_row() {
        let trials =
            planned("select = ['ridge', 'power']\nridge = [0.1, 1]\npower = [0, 1]\ncomponents = [4, 8]").unwrap();
        assert_eq!(trials.len(), 4);
        let first = &trials[0];
        assert_eq!(first.swept, BTreeMap::from([("components".into(), "4".into())]));
        assert_eq!(first.params["ridge"], toml::Value::Array(vec![0.1.into(), 1.0.into()]));
        let taken: Vec<(f64, f64)> = settings(first)
            .iter()
            .map(|setting| (setting["power"].as_float().unwrap(), setting["ridge"].as_float().unwrap()))
            .collect();
        assert_eq!(taken, [(0.0, 0.1), (0.0, 1.0), (1.0, 0.1), (1.0, 1.0)]);
        assert!(settings(first).iter().all(|setting| setting["components"].as_integer() == Some(4)));
        let plain = planned("ridge = [0.1, 1]").unwrap();
        assert!(plain.iter().all(|trial| settings(trial) == [trial.params.clone()]));
        let error = format!("{:#}", planned("select = ['rigde']\nridge = [0.1, 1]").err().unwrap());
        assert!(error.contains("`select` names `rigde`, which has no values here; did you mean `ridge`?"), "{error}");
        assert!(planned("select = ['ridge']\nridge = [0.1, -1]").is_err());
    }

    #[test]
    fn wanted_trials_come_with_what_they_are_made_of() {
        let rows = "components = [4, 8]\n[[ensembles]]\nlabel = 'Both'\nof = ['CCA components 4', 'CCA components 8']";
        let all = planned(rows).unwrap();
        // Two rows and their mean, two seeds each.
        assert_eq!(all.len(), 6);
        let second = only(&all, |planned| planned.label == "Both" && planned.seed == 2);
        assert_eq!(second.iter().map(|planned| planned.seed).collect::<Vec<_>>(), [2, 2, 2]);
        let Job::Combine(combined) = &second[2].job else { panic!("an ensemble") };
        assert_eq!(combined.members(), [0, 1]);
        assert_eq!(only(&all, |planned| planned.swept.values().any(|value| value == "8")).len(), 2);
    }

    #[test]
    fn a_learning_curve_has_a_row_a_size() {
        let text = "title = 'x'\nseeds = [1]\ntraining_images = [50, 200]\nprotocol = { task = { kind = 'pairs' } }\n\
                    [[datasets]]\nname = 'emoji'\n[[methods]]\nmethod = 'cca'";
        let experiment = Experiment::parse("x", "x.toml", text, super::super::Profile::Quick).unwrap();
        let trials = plan(&experiment, &Methods::with(&[])).unwrap();
        assert_eq!(trials.iter().map(|it| it.images).collect::<Vec<_>>(), [Some(50), Some(200)]);
        assert_eq!(trials[0].swept, BTreeMap::from([(TRAINING_IMAGES.into(), "50".into())]));
        // What it was fitted on is part of what it is.
        assert_ne!(trials[0].recorded(), trials[1].recorded());
        assert_eq!(settings(&trials[0]), settings(&trials[1]));
    }

    #[test]
    fn common_parameters_go_to_the_methods_that_have_them() {
        let text = |common: &str| {
            format!(
                "title = 'x'\nseeds = [1]\nprotocol = {{ task = {{ kind = 'pairs' }} }}\ncommon = {{ {common} }}\n\
                 [[datasets]]\nname = 'emoji'\n[[methods]]\nmethod = 'cca'\n[[methods]]\nmethod = 'vse'\nepochs = 3\n\
                 [profile.quick]\ncommon = {{ embedding = 9 }}"
            )
        };
        let plan = |common: &str| {
            let experiment = Experiment::parse("x", "x.toml", &text(common), super::super::Profile::Quick)?;
            plan(&experiment, &Methods::with(&[]))
        };
        let trials = plan("embedding = 7, epochs = 5, ridge = 0.25").unwrap();
        assert_eq!(trials[0].params["ridge"].as_float(), Some(0.25));
        // The profile goes before the experiment, the entry before both.
        assert_eq!(trials[1].params["embedding"].as_integer(), Some(9));
        assert_eq!(trials[1].params["epochs"].as_integer(), Some(3));
        let error = format!("{:#}", plan("epoch = 5").err().unwrap());
        assert!(error.contains("`common` names `epoch`") && error.contains("did you mean `epochs`?"), "{error}");
    }

    #[test]
    fn a_parameter_that_takes_an_array_keeps_it() {
        let text = "title = 'x'\nseeds = [1]\nprotocol = { task = { kind = 'pairs' } }\n[[datasets]]\nname = 'emoji'\n\
                    [[methods]]\nmethod = 'scm'\nc_grid = [[0.1, 1]]";
        let experiment = Experiment::parse("x", "x.toml", text, super::super::Profile::Quick).unwrap();
        let trials = plan(&experiment, &Methods::with(&[])).unwrap();
        assert_eq!(trials.len(), 1);
        assert_eq!(settings(&trials[0]), [trials[0].params.clone()]);
        assert_eq!(trials[0].params["c_grid"], toml::Value::Array(vec![0.1.into(), 1.0.into()]));
    }
}
