using System.Globalization;
using NativeLora;
using NativeLora.Hosting;
using NativeLora.Sample.Aot;

// Classifies texts: one an argument, or else one a line of standard input.
if (args.Length < 1 || args[0] is "-h" or "--help")
{
    Console.Error.WriteLine("usage: NativeLora.Sample.Aot MODEL-FOLDER [--adapter FOLDER] [--threads N] [--bench] [TEXT...]");
    Console.Error.WriteLine("       NativeLora.Sample.Aot --write-tiny FOLDER    writes a model of random weights to try it with");
    return 2;
}
try
{
    if (args is ["--write-tiny", var folder])
    {
        TinyModel.Write(folder);
        return 0;
    }
    var rest = args.Skip(1).ToList();
    var bench = rest.Remove("--bench") ? new Bench() : null;
    AdapterSource[] adapters = Value("--adapter") is { } adapter ? [new("adapter", adapter)] : [];
    int? threads = Value("--threads") is { } number && int.TryParse(number, CultureInfo.InvariantCulture, out var count) ? count : null;
    using var classifier = Classifier.Open(args[0], new InferenceOptions { Adapters = adapters, Threads = threads });
    bench?.Opened();
    var probabilities = new float[classifier.Classes];
    foreach (var text in rest.Count > 0 ? rest : Lines())
    {
        var prediction = classifier.Predict(text, null, probabilities);
        Console.WriteLine($"{prediction.Label}\t{string.Join('\t', probabilities.Select(p => p.ToString("0.0000", CultureInfo.InvariantCulture)))}");
        bench?.Run(classifier, text);
        bench = null;
    }
    return 0;

    string? Value(string option)
    {
        if (rest.IndexOf(option) is not (>= 0 and var at) || at + 1 == rest.Count)
            return null;
        var value = rest[at + 1];
        rest.RemoveRange(at, 2);
        return value;
    }
}
catch (Exception error) when (error is InputException or RunException)
{
    Console.Error.WriteLine(error.Message);
    return error is InputException ? 2 : 1;
}

static IEnumerable<string> Lines()
{
    while (Console.In.ReadLine() is { } line)
        if (line.Length > 0)
            yield return line;
}
