using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using NativeLora.Devices.Cuda;

namespace NativeLora.Bench.Cuda;

/// <summary>What the text of a kernel says of it.</summary>
/// <param name="File">File of PTX.</param>
/// <param name="Name">Name.</param>
/// <param name="Threads">Threads of a block at most; 0: not said.</param>
/// <param name="SharedBytes">Static shared memory of a block.</param>
/// <param name="LocalBytes">Memory of a thread beside its registers, as far as the PTX has it.</param>
/// <param name="Mix">Instructions in the text by what they do; a loop's are counted once.</param>
internal sealed partial record PtxKernel(string File, string Name, int Threads, int SharedBytes, int LocalBytes, IReadOnlyDictionary<InstructionClass, int> Mix)
{
    /// <summary>All kernels that the library embeds, by file and name.</summary>
    public static IReadOnlyList<PtxKernel> Embedded()
    {
        var assembly = typeof(CudaDevice).Assembly;
        var kernels = new List<PtxKernel>();
        foreach (var file in assembly.GetManifestResourceNames().Where(n => n.EndsWith(".ptx", StringComparison.Ordinal)).Order(StringComparer.Ordinal))
        {
            using var reader = new StreamReader(assembly.GetManifestResourceStream(file)!);
            kernels.AddRange(Parse(file, reader.ReadToEnd()));
        }
        return kernels;
    }

    public static IEnumerable<PtxKernel> Parse(string file, string text)
    {
        var entries = Entry().Matches(text);
        // What stands before the first kernel is there for all.
        var shared = Shared().Matches(entries.Count == 0 ? text : text[..entries[0].Index]).Select(m => (Name: m.Groups[1].Value, Bytes: Int(m.Groups[2].Value))).ToList();
        foreach (Match entry in entries)
        {
            var end = text.IndexOf("\n}", entry.Index, StringComparison.Ordinal);
            var body = text[entry.Index..(end < 0 ? text.Length : end)];
            var mix = new Dictionary<InstructionClass, int>();
            foreach (Match m in Instruction().Matches(body))
            {
                var kind = Classify(m.Groups[1].Value);
                mix[kind] = mix.GetValueOrDefault(kind) + 1;
            }
            yield return new PtxKernel(
                Path.GetFileNameWithoutExtension(file),
                entry.Groups[1].Value,
                MaxThreads().Match(body) is { Success: true } most ? Int(most.Groups[1].Value) : 0,
                shared.Where(s => body.Contains(s.Name, StringComparison.Ordinal)).Sum(s => s.Bytes) + Shared().Matches(body).Sum(m => Int(m.Groups[2].Value)),
                Local().Matches(body).Sum(m => Int(m.Groups[1].Value)),
                mix);
        }
    }

    /// <summary>Registers of a thread by kernel, as ptxas assigns them for an architecture; null where there is no ptxas.</summary>
    public static IReadOnlyDictionary<string, int>? Registers(string architecture)
    {
        var registers = new Dictionary<string, int>(StringComparer.Ordinal);
        var assembly = typeof(CudaDevice).Assembly;
        foreach (var file in assembly.GetManifestResourceNames().Where(n => n.EndsWith(".ptx", StringComparison.Ordinal)))
        {
            var path = Path.GetTempFileName();
            try
            {
                using (var stream = assembly.GetManifestResourceStream(file)!)
                using (var to = System.IO.File.Create(path))
                    stream.CopyTo(to);
                var start = new ProcessStartInfo("ptxas", ["-v", $"-arch={architecture}", "-o", "/dev/null", path]) { RedirectStandardError = true, RedirectStandardOutput = true };
                using var process = Process.Start(start)!;
                var said = process.StandardError.ReadToEnd();
                process.WaitForExit();
                if (process.ExitCode != 0)
                    throw new RunException($"ptxas does not take {file}: {said.Split('\n')[0]}");
                foreach (Match m in Assigned().Matches(said))
                    registers[m.Groups[1].Value] = Int(m.Groups[2].Value);
            }
            catch (System.ComponentModel.Win32Exception)
            {
                return null;
            }
            finally
            {
                System.IO.File.Delete(path);
            }
        }
        return registers;
    }

    private static InstructionClass Classify(string opcode)
    {
        var parts = opcode.Split('.');
        return parts[0] switch
        {
            "mma" or "wmma" or "ldmatrix" or "movmatrix" => InstructionClass.Tensor,
            "ld" or "st" or "ldu" when parts.Contains("global") => InstructionClass.Global,
            "cp" or "prefetch" => InstructionClass.Global,
            "ld" or "st" when parts.Contains("shared") => InstructionClass.Shared,
            "bar" or "barrier" or "membar" or "fence" => InstructionClass.Barrier,
            "shfl" or "vote" or "activemask" => InstructionClass.Lanes,
            "bra" or "ret" or "exit" => InstructionClass.Branch,
            "add" or "sub" or "mul" or "fma" or "mad" or "div" or "sqrt" or "rsqrt" or "rcp" or "ex2" or "lg2" or "sin" or "cos" or "tanh" or "min" or "max" or "neg" or "abs"
                when parts[^1] is "f64" => InstructionClass.Double,
            "add" or "sub" or "mul" or "fma" or "mad" or "div" or "sqrt" or "rsqrt" or "rcp" or "ex2" or "lg2" or "sin" or "cos" or "tanh" or "min" or "max" or "neg" or "abs"
                when parts[^1] is "f32" or "f16" or "bf16" or "f16x2" or "bf16x2" => InstructionClass.Single,
            _ => InstructionClass.Other,
        };
    }

    private static int Int(string digits) => int.Parse(digits, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"\.entry ([\w$]+)\(")]
    private static partial Regex Entry();

    [GeneratedRegex(@"\.shared \.align \d+ \.b8 ([\w$]+)\[(\d+)\]")]
    private static partial Regex Shared();

    [GeneratedRegex(@"\.local \.align \d+ \.b8 \s*[\w$]+\[(\d+)\]")]
    private static partial Regex Local();

    [GeneratedRegex(@"\.maxntid (\d+)")]
    private static partial Regex MaxThreads();

    [GeneratedRegex(@"^\t(?:@!?%p\d+ )?([a-z][\w.:]*)[ ;\t]", RegexOptions.Multiline)]
    private static partial Regex Instruction();

    [GeneratedRegex(@"Compiling entry function '([\w$]+)'[\s\S]*?Used (\d+) registers")]
    private static partial Regex Assigned();
}

/// <summary>What an instruction works on.</summary>
internal enum InstructionClass
{
    /// <summary>Tensor cores and the loads of their tiles.</summary>
    Tensor,

    /// <summary>fp32 (or narrower) arithmetic.</summary>
    Single,

    /// <summary>fp64 arithmetic.</summary>
    Double,

    /// <summary>Global memory, asynchronous copies included.</summary>
    Global,

    /// <summary>Shared memory.</summary>
    Shared,

    /// <summary>Exchange between lanes.</summary>
    Lanes,

    /// <summary>Barriers and fences.</summary>
    Barrier,

    /// <summary>Branches.</summary>
    Branch,

    /// <summary>Integers, conversions, moves, comparisons.</summary>
    Other,
}
