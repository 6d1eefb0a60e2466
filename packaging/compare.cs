// Compares the packages of two folders: dotnet run compare.cs -- FOLDER FOLDER TEXT-THAT-MAY-NOT-BE-THERE...
#:property PublishAot=false
using System.IO.Compression;
using System.Text;

var (first, second, forbidden) = (args[0], args[1], args[2..]);
var faults = new List<string>();
string[] wanted = ["NativeLora", "NativeLora.Cli", "NativeLora.Cuda", "NativeLora.Extensions", "NativeLora.Imaging"];
var names = Files(first);
if (!names.SequenceEqual(Files(second)))
    faults.Add($"the folders hold other packages: {string.Join(", ", names)}; {string.Join(", ", Files(second))}");
foreach (var id in wanted)
    foreach (var kind in (string[])[".nupkg", ".snupkg"])
        if (!names.Any(n => n.StartsWith($"{id}.0", StringComparison.Ordinal) && n.EndsWith($"0{kind}", StringComparison.Ordinal)))
            faults.Add($"there is no {kind} of {id}");
foreach (var name in names)
{
    using var a = ZipFile.OpenRead(Path.Combine(first, name));
    using var b = ZipFile.OpenRead(Path.Combine(second, name));
    var (entries, others) = (Contents(a), Contents(b));
    foreach (var entry in entries.Keys.Union(others.Keys).Order(StringComparer.Ordinal))
        if (!entries.TryGetValue(entry, out var bytes) || !others.TryGetValue(entry, out var same))
            faults.Add($"{name}: {entry} is in one of the folders only");
        else if (!bytes.AsSpan().SequenceEqual(same))
            faults.Add($"{name}: {entry} differs");
        else if (IsOurs(entry))
            foreach (var text in forbidden)
                if (bytes.AsSpan().IndexOf(Encoding.UTF8.GetBytes(text)) >= 0 || bytes.AsSpan().IndexOf(Encoding.Unicode.GetBytes(text)) >= 0)
                    faults.Add($"{name}: {entry} holds the path {text}");
    if (name.EndsWith(".nupkg", StringComparison.Ordinal))
        Look(name, entries);
    else if (!entries.Keys.Any(e => e.EndsWith(".pdb", StringComparison.Ordinal)))
        faults.Add($"{name}: holds no symbols");
    Console.WriteLine($"{name}: {new FileInfo(Path.Combine(first, name)).Length:#,##0} bytes, {entries.Count} files, {entries.Values.Sum(e => (long)e.Length):#,##0} bytes unpacked, the same from both folders");
}
foreach (var fault in faults)
    Console.Error.WriteLine(fault);
return faults.Count == 0 ? 0 : 1;

// What others built says where they built it.
static bool IsOurs(string entry) => entry.Split('/')[^1] is var file
    && (file.StartsWith("NativeLora", StringComparison.Ordinal) || file.StartsWith("libnativelora", StringComparison.Ordinal) || Path.GetExtension(file) is ".nuspec" or ".md" or ".xml" or ".json");

static string[] Files(string folder) => [.. Directory.GetFiles(folder).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];

// The name of the properties' file is drawn anew by every pack; what is in it counts.
static Dictionary<string, byte[]> Contents(ZipArchive zip) => zip.Entries.Where(e => e.FullName != "_rels/.rels").ToDictionary(
    e => e.FullName.EndsWith(".psmdcp", StringComparison.Ordinal) ? "properties" : e.FullName,
    e =>
    {
        using var stream = e.Open();
        var memory = new MemoryStream();
        stream.CopyTo(memory);
        return memory.ToArray();
    });

void Look(string name, Dictionary<string, byte[]> entries)
{
    var nuspec = Encoding.UTF8.GetString(entries.First(e => e.Key.EndsWith(".nuspec", StringComparison.Ordinal)).Value);
    foreach (var element in (string[])["<description>", "<readme>README.md</readme>", "<authors>NativeLora contributors</authors>", "<tags>"])
        if (!nuspec.Contains(element, StringComparison.Ordinal))
            faults.Add($"{name}: its nuspec has no {element}");
    if (nuspec.Contains("Package Description", StringComparison.Ordinal))
        faults.Add($"{name}: its description is the one that nobody wrote");
    foreach (var file in (string[])["README.md", "NOTICE.md"])
        if (!entries.ContainsKey(file))
            faults.Add($"{name}: holds no {file}");
    // Libraries come with the documentation of their members.
    foreach (var assembly in entries.Keys.Where(e => e.StartsWith("lib/", StringComparison.Ordinal) && e.EndsWith(".dll", StringComparison.Ordinal)))
        if (!entries.ContainsKey(Path.ChangeExtension(assembly, ".xml")))
            faults.Add($"{name}: {assembly} has no documentation beside it");
    if (entries.Keys.FirstOrDefault(e => e.StartsWith("lib/", StringComparison.Ordinal) && e.EndsWith(".pdb", StringComparison.Ordinal)) is { } symbols)
        faults.Add($"{name}: {symbols} belongs into the symbols' package");
}
