using System.Buffers.Binary;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using NativeLora.Checkpoints;
using NativeLora.Tensors;

namespace NativeLora.Adapters;

/// <summary>Puts an adapter into the weights of its base: a model that needs no adapter.</summary>
public static class AdapterMerger
{
    private static readonly string[] Companions =
    [
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
        "tokenizer.model", "spm.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "generation_config.json",
        "preprocessor_config.json", "processor_config.json",
    ];

    /// <summary>
    /// Writes a Hugging Face folder: W + scaling·B·A, computed in fp32 and stored in the type that the base has; modules
    /// saved in full in place of the base's; all other tensors byte for byte; config and tokenizer. Tensors get the full
    /// names of the model (<c>bert.encoder…</c>), also if the base's file has none of the prefix. Block-quantized weights
    /// are written in bf16. Embeddings tied to the LM head are untied if the adapter changes
    /// one of them, so that the model computes what it did with the adapter beside.
    /// </summary>
    /// <param name="baseCheckpoint">The base.</param>
    /// <param name="model">The modules of the model, with the adapter's head.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="weights">The adapter's tensors.</param>
    /// <param name="outputFolder">The folder to make; it must not exist, or be empty. It appears when it is complete.</param>
    /// <param name="labels">Names of the classes for config.json, if the base's do not fit.</param>
    /// <param name="cancellation">Stops between tensors; nothing is left behind.</param>
    /// <exception cref="InputException">Base and adapter do not fit, or the output folder is in use.</exception>
    /// <exception cref="RunException">A file cannot be written, or a merged value does not fit the base's type.</exception>
    public static void Merge(
        Checkpoint baseCheckpoint, ModelModules model, LoraConfig config, AdapterWeights weights, string outputFolder, IReadOnlyList<string>? labels = null,
        CancellationToken cancellation = default)
    {
        MergedWeight.Check(config, TargetResolver.Resolve(config, model));
        var merge = new Plan(baseCheckpoint, model, config, weights);
        var tensors = merge.Tensors();
        var json = MergedConfig.Write(baseCheckpoint.Config.Json, model, labels, merge.Untied);
        AtomicFile.WriteFolder(outputFolder, folder =>
        {
            SafeTensorsWriter.Write(Path.Combine(folder, "model.safetensors"), [.. tensors.Select(t => TensorToWrite.Streamed(t.Name, t.Type, t.Shape, to =>
            {
                cancellation.ThrowIfCancellationRequested();
                t.WriteTo(to);
            }))]);
            CopyCompanions(baseCheckpoint, folder);
            AtomicFile.WriteAllText(Path.Combine(folder, "config.json"), json);
        });
    }

    /// <summary>Copies what a model needs beside its weights and config: the tokenizer, above all.</summary>
    /// <exception cref="RunException">A file cannot be written.</exception>
    internal static void CopyCompanions(Checkpoint from, string folder)
    {
        var source = Path.GetDirectoryName(Path.GetFullPath(from.Path))!;
        foreach (var name in Companions)
            if (File.Exists(Path.Combine(source, name)))
                AtomicFile.Write(Path.Combine(folder, name), to =>
                {
                    using var file = File.OpenRead(Path.Combine(source, name));
                    file.CopyTo(to);
                });
    }

    /// <summary>What each tensor of the merged model is made of.</summary>
    private sealed class Plan
    {
        private readonly Checkpoint checkpoint;
        private readonly ModelModules model;
        private readonly LoraConfig config;
        private readonly AdapterWeights weights;
        private readonly BaseNames names;
        private readonly ResolvedTargets targets;
        private readonly ElementType mainType;
        private readonly List<TensorToWrite> tensors = [];
        private readonly HashSet<string> done = new(StringComparer.Ordinal);

        public Plan(Checkpoint checkpoint, ModelModules model, LoraConfig config, AdapterWeights weights)
        {
            (this.checkpoint, this.model, this.config, this.weights) = (checkpoint, model, config, weights);
            names = new BaseNames(model, checkpoint.Tensors.Keys);
            targets = TargetResolver.Resolve(config, model, strict: true);
            AdapterFile.Check(config, targets, weights, withoutHead: true);
            mainType = checkpoint.Tensors.Values.Where(t => IsFloat(WrittenType(t.Type))).GroupBy(t => WrittenType(t.Type)).MaxBy(g => g.Sum(t => t.Bytes))?.Key ?? ElementType.F32;
            HeadIsTied = model.Modules.FirstOrDefault(m => m.IsOutputHead && m.Name.EndsWith("lm_head", StringComparison.Ordinal)) is { } head
                && names.Find($"{head.Name}.weight") is null ? (head, model.Modules.First(m => m.Kind == ModuleKind.Embedding)) : null;
        }

        public bool Untied { get; private set; }

        // The LM head without a tensor of its own, and the embedding whose tensor it shares.
        private (ModuleInfo Head, ModuleInfo Embedding)? HeadIsTied { get; }

        public IReadOnlyList<TensorToWrite> Tensors()
        {
            foreach (var tensor in AdapterLayout.Tensors(config, targets))
                // A head that the adapter lacks stays the base's.
                if (!weights.Tensors.ContainsKey(tensor.Key))
                    continue;
                else if (tensor.Role is AdapterRole.SavedWeight)
                    Replace($"{tensor.Module.Name}.weight", tensor);
                else if (tensor.Role is AdapterRole.SavedBias or AdapterRole.Bias)
                    Replace($"{tensor.Module.Name}.bias", tensor);
            foreach (var adapted in targets.Adapted)
                Adapt(adapted);
            Untie();
            foreach (var name in names.FullNames)
                if (done.Add(name))
                    Copy(name, names.Find(name)!);
            RequireAll();
            return tensors;
        }

        private void Replace(string name, AdapterTensorInfo tensor)
        {
            var type = names.Find(name) is { } known ? Require(name, known, tensor.Shape) : mainType;
            Add(name, type, tensor.Shape, () => weights[tensor.Key].Values);
        }

        private void Adapt(AdaptedModule adapted)
        {
            var module = adapted.Module;
            var name = $"{module.Name}.weight";
            var known = names.Find(name) ?? (HeadIsTied is { } tied && tied.Head == module ? names.Find($"{tied.Embedding.Name}.weight") : null)
                ?? throw Missing(name);
            var type = Require(name, known, module.WeightShape);
            Add(name, type, module.WeightShape, () => Merged(adapted, known));
        }

        // The one of the two that the adapter left alone gets the base's values.
        private void Untie()
        {
            if (HeadIsTied is not { } tied)
                return;
            var (head, embedding) = ($"{tied.Head.Name}.weight", $"{tied.Embedding.Name}.weight");
            if (!done.Contains(head) && !done.Contains(embedding))
                return;
            Untied = true;
            var known = names.Find(embedding) ?? throw Missing(embedding);
            foreach (var name in new[] { head, embedding })
                if (done.Add(name))
                    Copy(name, known);
        }

        private void RequireAll()
        {
            foreach (var module in model.Modules)
            {
                if (module.Kind == ModuleKind.Other || module == HeadIsTied?.Head)
                    continue;
                if (!done.Contains($"{module.Name}.weight"))
                    throw Missing($"{module.Name}.weight");
                if (module.HasBias && !done.Contains($"{module.Name}.bias"))
                    throw Missing($"{module.Name}.bias");
            }
        }

        private InputException Missing(string name) =>
            new($"{checkpoint.Path}: there is no tensor for {name}, and the adapter does not hold it; is this the adapter's base model?");

        private ElementType Require(string name, string known, IReadOnlyList<int> shape)
        {
            var info = checkpoint.Tensors[known];
            if (!info.Shape.SequenceEqual(shape.Select(s => (long)s)))
                throw new InputException($"{checkpoint.Path}: tensor {PeftPattern.Show(known)} is {info.ShapeText}, the adapter's {name} is [{string.Join(", ", shape)}]; is this the adapter's base model?");
            if (!IsFloat(WrittenType(info.Type)))
                throw new InputException($"{checkpoint.Path}: tensor {PeftPattern.Show(known)} is {info.Type}; only F32, F16, BF16 and F64 can be merged into");
            return WrittenType(info.Type);
        }

        private void Add(string name, ElementType type, IReadOnlyList<int> shape, Func<float[]> values)
        {
            done.Add(name);
            tensors.Add(TensorToWrite.Streamed(Written(name), type, shape.Select(s => (long)s), to => Encode(to, name, type, values())));
        }

        private void Copy(string name, string known)
        {
            var info = checkpoint.Tensors[known];
            tensors.Add(TensorToWrite.Streamed(Written(name), WrittenType(info.Type), info.Shape, to =>
            {
                if (info.Type.IsBlock())
                    Encode(to, name, WrittenType(info.Type), checkpoint.ReadFloat32(known));
                else if (info.Bytes > int.MaxValue && info.Type == ElementType.F32)
                    Encode(to, name, info.Type, checkpoint.ReadFloat32(known));
                else if (info.Bytes > int.MaxValue)
                    throw new InputException($"{checkpoint.Path}: tensor {PeftPattern.Show(known)} of {info.Bytes} bytes is too large to be copied");
                else
                    to.Write(checkpoint.Get(known).Span);
            }));
        }

        /// <summary>Where files have names of their own, those of the base are kept.</summary>
        private string Written(string name) => model.TensorName is null ? name : names.Find(name) ?? name;

        private float[] Merged(AdaptedModule adapted, string known) =>
            MergedWeight.Of(config, weights, adapted, () => checkpoint.ReadFloat32(known), WrittenType(checkpoint.Tensors[known].Type));
    }

    /// <summary>Type in which a tensor of the base is written: blocks become bf16.</summary>
    private static ElementType WrittenType(ElementType stored) => stored.IsBlock() ? ElementType.BF16 : stored;

    private static bool IsFloat(ElementType type) => type is ElementType.F32 or ElementType.F16 or ElementType.BF16 or ElementType.F64;

    private static void Encode(Stream to, string name, ElementType type, float[] values)
    {
        const int Chunk = 1 << 16;
        var size = (int)type.Bytes(1);
        var buffer = new byte[Chunk * size];
        for (var at = 0; at < values.Length; at += Chunk)
        {
            var part = values.AsSpan(at, Math.Min(Chunk, values.Length - at));
            var bytes = buffer.AsSpan(0, part.Length * size);
            switch (type)
            {
                case ElementType.F32:
                    MemoryMarshal.AsBytes(part).CopyTo(bytes);
                    break;
                case ElementType.F64:
                    TensorPrimitives.ConvertTruncating<float, double>(part, MemoryMarshal.Cast<byte, double>(bytes));
                    break;
                case ElementType.BF16:
                    for (var i = 0; i < part.Length; i++)
                        BinaryPrimitives.WriteUInt16LittleEndian(bytes[(2 * i)..], Widening.ToBFloat16(part[i]));
                    break;
                default:
                    for (var i = 0; i < part.Length; i++)
                    {
                        var half = (Half)part[i];
                        if (Half.IsInfinity(half) && float.IsFinite(part[i]))
                            throw new RunException($"{name}: the merged value {part[i]} does not fit fp16, the base's type; merge into a base in bf16 or fp32");
                        BinaryPrimitives.WriteHalfLittleEndian(bytes[(2 * i)..], half);
                    }
                    break;
            }
            to.Write(bytes);
        }
    }
}
