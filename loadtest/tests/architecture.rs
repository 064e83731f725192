//! The structure of the code, held against what ARCHITECTURE.md says of it: arrows between modules go one
//! way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// The crates, by their folders, and what each is called in the document.
const CRATES: [(&str, &str); 3] = [("service", "service"), ("loadtest", "loadtest"), ("loadtest/lab", "lab")];

/// A module: the names on the way to it from its crate's root, which is empty.
type Module = Vec<String>;

/// Which module mentions which, of one crate; a module that mentions an item is taken to mention the item's
/// module.
type Mentions = BTreeSet<(Module, Module)>;

/// Which of some modules uses which.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").into()
}

/// A crate's modules with their code; tests are left out.
fn modules(folder: &str) -> BTreeMap<Module, Vec<Item>> {
    let source = root().join(folder).join("src");
    let mut modules = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&source).expect("it is below").with_extension("");
                let mut module: Module =
                    inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                // The program's own modules hang on its root, as the library's do.
                module.retain(|part| part != "lib" && part != "main");
                let text = fs::read_to_string(&path).expect("a source file");
                let code =
                    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let items = code.items.into_iter().filter(|item| !is_for_tests(item));
                modules.entry(module).or_insert_with(Vec::new).extend(items);
            }
        }
    }
    modules.retain(|module, _| module.last().is_none_or(|name| name != "tests"));
    modules
}

fn is_for_tests(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|argument| argument.is_ident("test"))
    })
}

/// Collects the paths that a module mentions.
struct Paths<'a> {
    module: &'a Module,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    /// Notes a path that begins at the root of the crate, or at the module or above it.
    fn note(&mut self, path: &[String]) {
        let mut place = self.module.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate") => place.clear(),
            Some("self") => {}
            Some("super") => drop(place.pop()),
            _ => return,
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|part| part == "super") {
            place.pop();
            rest = &rest[1..];
        }
        place.extend_from_slice(rest);
        self.found.push(place);
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.note(&with(name.ident.to_string())),
            UseTree::Rename(rename) => self.note(&with(rename.ident.to_string())),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.note_tree(before, item)),
        }
    }

    /// Paths in the arguments of a macro, which are no syntax yet.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::<String>::new();
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => continue,
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    if ["crate", "super", "self"].contains(&name.as_str()) && path.is_empty() {
                        path.push(name);
                        continue;
                    }
                    if !path.is_empty() {
                        path.push(name);
                        continue;
                    }
                }
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                _ => {}
            }
            self.note(&std::mem::take(&mut path));
        }
        self.note(&path);
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.note_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

/// Where the names come from that modules hand on: from a module and a name in it to what it stands for.
type Reexports = BTreeMap<(Module, String), Vec<String>>;

fn reexports(modules: &BTreeMap<Module, Vec<Item>>) -> Reexports {
    let mut reexports = Reexports::new();
    for (module, items) in modules {
        for item in items {
            let Item::Use(item) = item else { continue };
            if matches!(item.vis, syn::Visibility::Inherited) {
                continue;
            }
            let mut paths = Paths { module, found: Vec::new() };
            paths.note_tree(&[], &item.tree);
            // `pub use child::Name` begins at the module, too.
            paths.note_tree(&["self".to_owned()], &item.tree);
            for path in paths.found.into_iter().filter(|path| path.len() > module.len() + 1) {
                let name = path.last().expect("it is longer").clone();
                reexports.entry((module.clone(), name)).or_insert(path);
            }
        }
    }
    reexports
}

fn mentions(modules: &BTreeMap<Module, Vec<Item>>) -> Mentions {
    let reexports = reexports(modules);
    let mut mentions = Mentions::new();
    for (module, items) in modules {
        let mut paths = Paths { module, found: Vec::new() };
        items.iter().for_each(|item| paths.visit_item(item));
        for mut path in paths.found {
            // Not for ever: a name may be handed on under itself.
            for _ in 0..10 {
                let longest = (0..=path.len()).rev().map(|length| &path[..length]);
                let of = longest.into_iter().find(|start| modules.contains_key(*start)).unwrap_or_default();
                mentions.insert((module.clone(), of.to_vec()));
                let Some(name) = path.get(of.len()) else { break };
                let Some(from) = reexports.get(&(of.to_vec(), name.clone())) else { break };
                path.clone_from(from);
            }
        }
    }
    mentions
}

/// Which of the modules right below `parent` uses which, each with all that is below it.
fn arrows(mentions: &Mentions, parent: &[String]) -> Arrows {
    let below = |module: &Module| module.strip_prefix(parent).and_then(|rest| rest.first().cloned());
    let mut arrows = Arrows::new();
    for (from, to) in mentions {
        let Some(from) = below(from) else { continue };
        let used = arrows.entry(from.clone()).or_default();
        used.extend(below(to).filter(|to| *to != from));
    }
    arrows
}

/// All that can be reached from a module.
fn reachable(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = arrows.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module.clone()) {
            next.extend(arrows.get(module).into_iter().flatten());
        }
    }
    reached
}

/// The arrows that do not follow from others.
fn essential(arrows: &Arrows) -> Vec<(String, String)> {
    let mut essential = Vec::new();
    for (from, used) in arrows {
        for to in used {
            let is_indirect = used.iter().any(|other| other != to && reachable(arrows, other).contains(to));
            if !is_indirect {
                essential.push((from.clone(), to.clone()));
            }
        }
    }
    essential
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut circles = String::new();
    for (folder, name) in CRATES {
        let modules = modules(folder);
        let mentions = mentions(&modules);
        for parent in modules.keys() {
            let arrows = arrows(&mentions, parent);
            for (from, used) in &arrows {
                for to in used.iter().filter(|to| reachable(&arrows, to).contains(from)) {
                    let place = [&[name.to_owned()], &parent[..]].concat().join("::");
                    writeln!(circles, "{place}: {from} uses {to}, and is used by it in turn")
                        .expect("a string");
                }
            }
        }
    }
    assert!(circles.is_empty(), "\n{circles}");
}

#[test]
fn modules_stand_in_the_order_in_which_they_use_each_other() {
    for (folder, name) in CRATES {
        let modules = modules(folder);
        let arrows = arrows(&mentions(&modules), &[]);
        let declared = modules[&Vec::new()].iter().filter_map(|item| match item {
            Item::Mod(item) => Some(item.ident.to_string()),
            _ => None,
        });
        let declared: Vec<_> = declared.collect();
        for (place, module) in declared.iter().enumerate() {
            for used in arrows.get(module).into_iter().flatten() {
                let is_below = declared[place..].contains(used);
                assert!(is_below, "{name}: {module} uses {used}, which stands above it in lib.rs");
            }
        }
    }
}

/// A crate's modules as a drawing.
fn drawing(folder: &str) -> String {
    let modules = modules(folder);
    let arrows = arrows(&mentions(&modules), &[]);
    let mut drawing = String::from("```mermaid\nflowchart TD\n");
    for (from, to) in essential(&arrows) {
        writeln!(drawing, "    {from} --> {to}").expect("a string");
    }
    drawing + "```\n"
}

#[test]
fn the_drawings_are_those_of_the_code() {
    let file = root().join("ARCHITECTURE.md");
    let mut text = fs::read_to_string(&file).expect("ARCHITECTURE.md");
    for (folder, name) in CRATES {
        let (begin, end) = (format!("<!-- modules of {name} -->\n"), "<!-- end -->");
        let start = text.find(&begin).unwrap_or_else(|| panic!("no drawing of {name}")) + begin.len();
        let stop = start + text[start..].find(end).expect("the drawing's end");
        text.replace_range(start..stop, &drawing(folder));
    }
    if std::env::var_os("STOCKLOCK_DRAW").is_some() {
        fs::write(&file, &text).expect("ARCHITECTURE.md can be written");
    }
    let is_up_to_date = fs::read_to_string(&file).expect("ARCHITECTURE.md") == text;
    assert!(is_up_to_date, "the modules are not as they are drawn; `make drawings` draws them anew");
}

#[test]
fn lines_are_at_most_110_columns_wide() {
    let mut wide = String::new();
    let mut folders = vec![root().join("service"), root().join("loadtest")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if ["rs", "lua"].iter().any(|known| path.extension().is_some_and(|own| own == *known)) {
                let text = fs::read_to_string(&path).expect("a source file");
                for (number, _) in text.lines().enumerate().filter(|(_, line)| line.chars().count() > 110) {
                    writeln!(wide, "{}:{}", path.display(), number + 1).expect("a string");
                }
            }
        }
    }
    assert!(wide.is_empty(), "\n{wide}");
}
